"""What the tests share: processes, brokers, and the two ends of an MQTT conversation.

    waiting     wait_until: the only way to wait for something
    ports       free_port
    processes   Process: a command whose output is kept, and which can be killed
    brokers     MosquittoBroker, AmqttBroker: one interface, one port for a broker's whole life
    mqtt        publish (mosquitto_pub, as a person types it) and Watcher (everything on ``hw/#``)
    programs    require_program: a missing server skips on a laptop and fails in CI
    soak_*      the parts, the people, the faults and the verdict of scripts/soak

Nothing here knows the protocol beyond "a status is JSON on ``hw/<user>/status``". Fakes are not
here: they ship in ``hwsync.testing``.
"""
