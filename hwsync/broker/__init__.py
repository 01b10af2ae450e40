"""The broker: broker.conf read, and served with amqtt where mosquitto is not to be had."""
