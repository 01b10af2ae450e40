"""TLS on real brokers: who comes in, who does not and what is said then, and a whole cycle."""

from __future__ import annotations

import json
import logging
import re
import socket
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from hwsync.address import BrokerUrl, Tls
from hwsync.transport import Connected, Delivery, Disconnected, Subscribed, paho_client
from tests.support.brokers import AmqttBroker, Broker, MosquittoBroker, encrypted
from tests.support.certificates import DAY, Authority, Certificate
from tests.support.lab import AS_ROOT, DEVICE, HWSYNC
from tests.support.mqtt import publish
from tests.support.ports import LOOPBACK, free_port
from tests.support.processes import Process
from tests.support.transports import Client, its_socket
from tests.support.waiting import wait_until

Connect = Callable[..., Client]
ON_MOSQUITTO = pytest.mark.parametrize("site", ["mosquitto"], indirect=True, scope="module")
BROKERS = {kind.name: kind for kind in (MosquittoBroker, AmqttBroker)}


@dataclass
class Site:
    """A broker with every kind of listener, each on a port of its own; and authorities."""

    broker: Broker
    ports: dict[str, int]
    authority: Authority
    stranger: Authority  # nobody knows it
    expired: Certificate

    def url(
        self, scheme: str, listener: str, ca: Path | None = None, own: Certificate | None = None
    ) -> BrokerUrl:
        tls = Tls(str(ca or self.authority.ca))
        if own is not None:
            tls = replace(tls, certificate=str(own.certificate), key=str(own.key))
        return BrokerUrl.parse(f"{scheme}://{LOOPBACK}:{self.ports[listener]}").with_tls(tls)


@pytest.fixture(scope="module", params=BROKERS)
def site(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, authority: Authority
) -> Iterator[Site]:
    """One broker for all tests that leave it as it is."""
    folder = tmp_path_factory.mktemp(request.param)
    stranger = Authority(folder / "stranger", "stranger")
    expired = authority.sign("expired", ends=-DAY / 2)
    others = {
        "expired": expired,
        "early": authority.sign("early", begins=DAY),
        "soon": authority.sign("soon", ends=10.5 * DAY),
        "elsewhere": authority.sign("elsewhere", "broker.lab", "10.0.0.7"),
    }
    names = ("plain", "tls", "wss", "mutual", "mutual-wss", "new", "ws", *others)
    ports = {name: free_port() for name in names}
    server, clients = authority.server, authority.ca
    lines = [
        *encrypted(ports["tls"], server),
        *encrypted(ports["wss"], server, websockets=True),
        *encrypted(ports["mutual"], server, clients=clients),
        *encrypted(ports["mutual-wss"], server, clients=clients, websockets=True),
        *encrypted(ports["new"], server, clients=clients, more=["tls_version tlsv1.3"]),
        *(line for name, one in others.items() for line in encrypted(ports[name], one)),
        *(f"listener {ports['ws']} {LOOPBACK}", "protocol websockets", "allow_anonymous true"),
    ]
    broker: Broker = BROKERS[request.param](folder, extra=lines, port=ports["plain"])
    broker.start()
    yield Site(broker, ports, authority, stranger, expired)
    broker.stop()
    print(broker.account())


# Who comes in


@pytest.mark.parametrize("listener", ["tls", "wss", "mutual", "mutual-wss", "new"])
def test_who_may_comes_in_and_packets_go_out_at_once(
    site: Site, connect: Connect, listener: str
) -> None:
    scheme = "wss" if "wss" in listener else "mqtts"
    own = site.authority.client if listener not in ("tls", "wss") else None
    client = connect(site.url(scheme, listener, own=own), "c", "hw/pi1/status", prefer_v5=True)
    connected = client.next(Connected)
    assert connected.protocol == (5 if site.broker.speaks_v5 else 4)
    assert connected.secured.version == "TLSv1.3"
    client.next(Subscribed)
    publish(site.broker, "hw/pi1/status", "x" * 10_000)
    assert len(client.next(Delivery).payload) == 10_000
    with its_socket(client.transport) as sock:
        assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY) == 1


def test_it_comes_back_after_kill_9_of_the_broker(
    authority: Authority,
    start_mosquitto: Callable[..., Broker],
    start_amqtt: Callable[..., Broker],
    connect: Connect,
) -> None:
    for start_broker in (start_mosquitto, start_amqtt):
        port = free_port()
        broker = start_broker(extra=encrypted(port, authority.server, clients=authority.ca))
        own = authority.client
        tls = Tls(str(authority.ca), str(own.certificate), str(own.key))
        url = BrokerUrl.parse(f"mqtts://{LOOPBACK}:{port}").with_tls(tls)
        client = connect(url, "c", "hw/pi1/status")
        client.next(Subscribed)
        broker.kill()
        assert client.next(Disconnected).was_connected
        broker.restart()
        client.next(Subscribed)
        publish(broker, "hw/pi1/status", "back")
        assert client.next(Delivery).payload == b"back"


@pytest.mark.parametrize("kind", BROKERS)
def test_a_certificate_says_who_its_client_is(
    authority: Authority,
    request: pytest.FixtureRequest,
    connect: Connect,
    tmp_path: Path,
    kind: str,
) -> None:
    rules = tmp_path / "acl"
    rules.write_text("topic read own/#\npattern write own/%u/#\n")
    rules.chmod(0o644)
    ports = [free_port(), free_port()]
    lines = [f"acl_file {rules}"]
    for port, socketed in zip(ports, (False, True), strict=True):
        more = ["use_identity_as_username true"]
        lines += encrypted(
            port, authority.server, clients=authority.ca, websockets=socketed, more=more
        )
    broker = request.getfixturevalue(f"start_{kind}")(extra=lines)
    watcher = connect(broker.url, "watcher", "own/#")
    watcher.next(Subscribed)
    own = authority.client  # pi1
    tls = Tls(str(authority.ca), str(own.certificate), str(own.key))
    for scheme, port in zip(("mqtts", "wss"), ports, strict=True):
        url = BrokerUrl.parse(f"{scheme}://{LOOPBACK}:{port}").with_tls(tls)
        client = connect(url.with_credentials("pi2", "whatever"), f"c-{scheme}")
        client.next(Subscribed)
        client.transport.publish("own/pi2/x", b"not mine")
        client.transport.publish("own/pi1/x", scheme.encode())
        assert watcher.next(Delivery).payload == scheme.encode()


# Who does not, and what is said

REFUSED = [
    ("mqtts", "tls", "strange", None, "not signed by the authority in --ca", "--ca FILE"),
    ("wss", "wss", "strange", None, "not signed by the authority in --ca", "--ca FILE"),
    ("mqtts", "expired", "lab", None, r"has expired \(this machine's clock says 20", "timedatectl"),
    ("mqtts", "early", "lab", None, "is not valid yet: this machine's clock says 20", "1970"),
    ("mqtts", "elsewhere", "lab", None, f"not for {LOOPBACK} but for broker.lab, 10.0.0.7", "name"),
    ("mqtts", "mutual", "lab", None, "wants a certificate of ours", "--cert FILE and --key"),
    ("wss", "mutual-wss", "lab", None, "wants a certificate of ours", "--cert FILE and --key"),
    ("mqtts", "new", "lab", None, "wants a certificate of ours", "--cert FILE and --key"),
    ("mqtts", "mutual", "lab", "strange", "refuses our certificate", "name another"),
    ("wss", "mutual-wss", "lab", "expired", "refuses our certificate", "name another"),
    ("mqtt", "tls", "lab", None, "speaks only TLS on port {port}", "use mqtts://"),
    ("ws", "wss", "lab", None, "speaks only TLS on port {port}", "use wss://"),
    ("wss", "ws", "lab", None, "speaks no TLS on port {port}", "8443.*without TLS it is ws://"),
    ("mqtts", "plain", "lab", None, "speaks no TLS on port {port}", "8883.*without TLS it is mqtt"),
]


@pytest.mark.parametrize(
    ("scheme", "listener", "ca", "own", "reason", "cure"),
    REFUSED,
    ids=[f"{scheme}-{listener}-{ca}-{own}" for scheme, listener, ca, own, *_ in REFUSED],
)
def test_an_attempt_that_is_refused_says_why(
    site: Site,
    connect: Connect,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
    scheme: str,
    listener: str,
    ca: str,
    own: str | None,
    reason: str,
    cure: str,
) -> None:
    caplog.set_level(logging.WARNING)
    monkeypatch.setattr(paho_client, "CONNECT_S", 1.0)  # amqtt's plain port does not answer to TLS
    trusted = {"lab": site.authority, "strange": site.stranger}[ca]
    certificate = {None: None, "strange": site.stranger.client, "expired": site.expired}[own]
    url = site.url(scheme, listener, trusted.ca, certificate)
    failed = connect(url, "c", prefer_v5=True).next(Disconnected)
    assert not failed.was_connected
    assert re.search(reason.format(port=url.port), failed.reason), failed
    assert re.search(cure, failed.cure), failed
    assert f"no connection to {url}: {failed.reason}; {failed.cure}" in caplog.text


@ON_MOSQUITTO  # amqtt ends the connection without a word
def test_mosquitto_says_what_it_has_against_a_certificate(site: Site, connect: Connect) -> None:
    for own, said in (
        (site.stranger.client, "the broker does not know the authority that signed it"),
        (site.expired, "it has expired, by the broker's clock"),
    ):
        url = site.url("mqtts", "mutual", own=own)
        assert said in connect(url, "c").next(Disconnected).reason


def test_what_closes_every_connection_is_not_taken_for_anything_else(connect: Connect) -> None:
    with socket.create_server((LOOPBACK, 0)) as silent:
        silent.settimeout(10)
        client = connect(f"mqtts://{LOOPBACK}:{silent.getsockname()[1]}", "c")
        for _ in range(4):  # the attempt, and three looks: TLS, MQTT, HTTP
            silent.accept()[0].close()
        said = client.next(Disconnected)
    assert said.reason == "the broker closed the connection during the TLS handshake"


# The commands


def test_a_whole_cycle(site: Site, start: Callable[..., Process], tmp_path: Path) -> None:
    """Each part gets the same in another way; and no secret is where others could see it."""
    own = site.authority.client
    pem = {"ca": site.authority.ca, "certificate": own.certificate, "key": own.key}
    clean = [] if site.broker.remembers else ["--clean-session"]
    program = (
        "import os\nfor process in ('self', os.getppid()):\n"
        "    for name in ('environ', 'cmdline'):\n"
        "        print(open(f'/proc/{process}/{name}').read())\n"
        "print(6 * 7)\n"
    )
    for scheme, listener in (("mqtts", "mutual"), ("wss", "wss")):
        url = f"{scheme}://{LOOPBACK}:{site.ports[listener]}"
        folder = tmp_path / listener
        folder.mkdir()
        own_keys = pem if "mutual" in listener else {"ca": pem["ca"]}
        texts = "".join(f"{key} = '''{file.read_text()}'''\n" for key, file in own_keys.items())
        paths = "".join(f"{key} = '{file}'\n" for key, file in own_keys.items())
        # amqtt answers no MQTT 5 connect that has a login: three seconds for each of ours.
        login = "account = 'pi1'\npassword = 's3cret'\n" if site.broker.speaks_v5 else ""
        for name, text in (
            ("device.toml", f"broker = '{url}'\n{login}{texts}[limits]\nfree_disk_mb = 0\n"),
            ("lab.toml", f"broker = '{url}'\n{login}{paths}"),
        ):
            (folder / name).touch(0o600)
            (folder / name).write_text(text)
        coordinator = start(
            [*HWSYNC, "coordinator", "--config", folder / "lab.toml", "--db", folder / "db",
             "--settle", "0", "--root", listener, *clean],
            name=f"coordinator-{listener}",
        )  # fmt: skip
        device = start(
            [*DEVICE, "--config", folder / "device.toml", "--user", "pi1", "--root", listener,
             "--state-dir", folder / "device", *AS_ROOT],
            variables={"HWSYNC_BROKER": url.replace("//", "//pi1:s3cret@")},
            name=f"device-{listener}",
        )  # fmt: skip
        coordinator.wait_for_log(r"connected to .*TLSv1.3[\s\S]*\bready\b")
        device.wait_for_log(r"connected to .*TLSv1.3")
        options = {"ca": "--ca", "certificate": "--cert", "key": "--key"}
        given = [part for key, file in own_keys.items() for part in (options[key], str(file))]
        run = start(
            [*HWSYNC, "run", "pi1", "--root", listener, *given, "-c", program],
            variables={"HWSYNC_BROKER": url.replace("//", "//pi1:s3cret@") if login else url},
            name=f"run-{listener}",
        )
        assert run.wait(20) == 0, run.account()
        assert run.stdout.endswith("\n42\n")
        assert "PATH=" in run.stdout, "the environment was seen"
        for process in (run, coordinator, device):
            seen = process.stdout + process.stderr + " ".join(process.command)
            assert "s3cret" not in seen
            assert "PRIVATE KEY" not in seen
        if listener == "mutual":
            doctor = start(
                [*HWSYNC, "--config", folder / "lab.toml", "doctor", "--root", listener],
                name="doctor",
            )
            assert doctor.wait(20) in (0, 1), "this machine's database and disk are its own affair"
            doctor.wait_for_log(r"^ok +tls +TLSv1.3, the broker's certificate lasts 364 more days$",
                                stream="stdout")  # fmt: skip
            doctor.wait_for_log("^ok +coordinator", stream="stdout")
        for process in (coordinator, device):
            process.stop()


@ON_MOSQUITTO
def test_doctor_check_and_a_command_say_it(
    site: Site, start: Callable[..., Process], tmp_path: Path
) -> None:
    def said(command: list[str | Path], name: str, **variables: str) -> Process:
        process = start(command, name=name, variables=variables)
        process.wait(30)
        return process

    def findings(process: Process, check: str) -> dict[str, str]:
        found = map(json.loads, process.stdout.splitlines())
        return [one for one in found if one["check"] == check][-1]  # before it: what was given

    def address(listener: str) -> str:
        return f"mqtts://{LOOPBACK}:{site.ports[listener]}"

    trusted = {"HWSYNC_CA": str(site.authority.ca)}
    doctor: list[str | Path] = [*HWSYNC, "doctor", "--json", "--db", tmp_path / "db", "--broker"]
    found = findings(said([*doctor, address("expired")], "expired", **trusted), "broker")
    assert found["result"] == "error"
    assert "has expired" in found["found"]
    assert "timedatectl" in found["cure"]

    (tmp_path / "device.toml").touch(0o600)
    (tmp_path / "device.toml").write_text(
        f"account = 'pi1'\npassword = 's3cret'\nca = '''{site.authority.ca.read_text()}'''\n"
        f"certificate = '{site.stranger.client.certificate}'\n"
        f"key = '''{site.stranger.client.key.read_text()}'''\n"
    )
    check = [*DEVICE, "--check", "--json", "--user", "pi1", "--state-dir", str(tmp_path / "d")]
    check += ["--config", str(tmp_path / "device.toml"), *AS_ROOT, "--broker"]
    refused = said([*check, address("mutual")], "check-refused")
    assert refused.exit_code == 1
    assert "refuses our certificate" in findings(refused, "broker")["found"]
    shown = {name: findings(refused, name)["found"] for name in ("password", "key", "ca")}
    assert shown["password"].startswith("(not shown), from ")
    assert shown["key"].startswith("(not shown), from ")
    assert shown["ca"].startswith("(a PEM text), from ")
    for secret in ("s3cret", "PRIVATE KEY"):
        assert secret not in refused.stdout + refused.stderr
    soon = said([*check, address("soon")], "check")
    assert soon.exit_code == 0, "a warning is no error"
    found = findings(soon, "tls")
    assert found["result"] == "warning"
    assert found["found"] == "TLSv1.3, the broker's certificate lasts 10 more days"

    status = said([*HWSYNC, "status", "--broker", address("tls"), "--ca", "/no.pem"], "status")
    assert status.exit_code == 125
    assert status.stderr.startswith(f"hwsync: {address('tls')}: cannot read /no.pem: No such file")
    assert "--ca FILE" in status.stderr


@ON_MOSQUITTO
def test_up_gives_its_parts_the_same(
    site: Site, start: Callable[..., Process], tmp_path: Path
) -> None:
    own = site.authority.client
    file = tmp_path / "lab.toml"
    file.touch(0o600)
    file.write_text(
        f"broker = 'mqtts://{LOOPBACK}:{site.ports['mutual']}'\nroot = 'up'\naccount = 'pi1'\n"
        f"password = 's3cret'\nca = '{site.authority.ca}'\ncertificate = '{own.certificate}'\n"
        f"key = '''{own.key.read_text()}'''\n"
    )
    command = [*HWSYNC, "--config", file, "up", "--user", "pi1", "--db", tmp_path / "db", *AS_ROOT]
    up = start(command, name="up")
    up.wait_for_log(r"^up +ready", 30)
    assert wait_until(lambda: re.search(r"^device .*connected to .*TLSv1.3", up.stderr, re.M))
    assert "s3cret" not in up.stderr
    up.stop()
