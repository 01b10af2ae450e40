"""hwsync: run programs on a lab's boards over MQTT and know exactly what happened."""

__version__ = "0.1.0"
