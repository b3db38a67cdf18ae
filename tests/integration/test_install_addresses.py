"""Retries, waiting messages and letters of a protected app go wherever its own tasks go."""

from __future__ import annotations

import ssl
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

from servers import RabbitMQ, Servers, free_port, require_or_skip
from support.legacy import Legacy
from support.tls import Certificates
from support.waiting import SOON_S, eventually
from support.worker import Worker
from support.yard import catalogue, fresh_settings
from taskyard.client import Taskyard
from taskyard.errors import ServerUnreachable
from taskyard.ops.embedded.port_and_passwords import LOOPBACK
from taskyard.ops.embedded.supervised_server import Program, SupervisedServer
from taskyard.settings import Settings
from taskyard.store import connect, reachable

# Each way of naming a broker starts workers of its own.
pytestmark = pytest.mark.slow

PASSWORD = "p@ss/w:rd#?%"  # noqa: S105 - each character of it means something in a URL
SECRET = quote(PASSWORD, safe="")
PRIMARY = "shop"


@dataclass
class App:
    """How an app names its broker, and how mirror and relay name the same."""

    broker: str
    ours: str
    tls: dict[str, Any] | None = None
    options: dict[str, Any] = field(default_factory=dict)


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    return Certificates.make(tmp_path_factory.mktemp("certificates"))


@dataclass
class Redis:
    """One server by three ways: TLS with a client's certificate, a socket, and a Sentinel."""

    tls_port: int
    port: int
    sentinel: int
    socket: Path


@pytest.fixture(scope="module")
def redis(certificates: Certificates, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Redis]:
    folder = tmp_path_factory.mktemp("redis")
    at = Redis(free_port(), free_port(), free_port(), folder / "r.sock")
    server = [str(require_or_skip("redis-server")), "--bind", LOOPBACK, "--save", ""]
    server += ["--port", str(at.port), "--tls-port", str(at.tls_port), "--dir", str(folder)]
    server += ["--unixsocket", str(at.socket), "--requirepass", PASSWORD]
    server += ["--masterauth", PASSWORD, "--tls-auth-clients", "yes"]
    for option, file in {"cert": "server.pem", "key": "server.key", "ca-cert": "ca.pem"}.items():
        server += [f"--tls-{option}-file", certificates.file(file)]
    configuration = folder / "sentinel.conf"
    configuration.write_text(
        f"port {at.sentinel}\nbind {LOOPBACK}\ndir {folder}\n"
        f"sentinel monitor {PRIMARY} {LOOPBACK} {at.port} 1\n"
        f'sentinel auth-pass {PRIMARY} "{PASSWORD}"\n'
    )
    started: list[SupervisedServer] = []
    try:
        _start(started, server, folder / "redis.log", f"redis://:{SECRET}@{LOOPBACK}:{at.port}")
        sentinel = [str(require_or_skip("redis-server")), str(configuration), "--sentinel"]
        url = f"sentinel://:{SECRET}@{LOOPBACK}:{at.sentinel}/{PRIMARY}"
        _start(started, sentinel, folder / "sentinel.log", url)
        yield at
    finally:
        for process in reversed(started):
            process.stop()


def _start(started: list[SupervisedServer], argv: list[str], log: Path, url: str) -> None:
    process = SupervisedServer(Program(argv=argv, log=log, cwd=log.parent))
    started.append(process)
    eventually(lambda: _answers(url), f"{log.name} answers", why=process.log_tail)


def _answers(url: str) -> bool:
    with connect(url, retries=0) as client:
        try:
            with reachable(url):
                return bool(client.ping())
        except ServerUnreachable:
            return False


def _tls_query(redis: Redis, certificates: Certificates) -> App:
    url = f"rediss://:{SECRET}@localhost:{redis.tls_port}/2?{certificates.query}"
    return App(url, url)


def _tls_configured(redis: Redis, certificates: Certificates) -> App:
    tls = {
        "ssl_cert_reqs": int(ssl.CERT_REQUIRED),
        "ssl_ca_certs": certificates.file("ca.pem"),
        "ssl_certfile": certificates.file("client.pem"),
        "ssl_keyfile": certificates.file("client.key"),
    }
    url = f"redis://:{SECRET}@{LOOPBACK}:{redis.tls_port}/2"
    return App(url, f"{url.replace('redis:', 'rediss:')}?{certificates.query}", tls)


def _socket(redis: Redis, certificates: Certificates) -> App:
    place = f"://:{SECRET}@{redis.socket}"
    return App(f"redis+socket{place}?virtual_host=3", f"unix{place}?db=3")


def _sentinels(redis: Redis, certificates: Certificates) -> App:
    """Our own way asks one first that does not answer; with kombu that takes 5 s each time."""
    nodes = [f"sentinel://:{SECRET}@{LOOPBACK}:{port}/4" for port in (redis.sentinel, 1)]
    hosts = f"{LOOPBACK}:1,{LOOPBACK}:{redis.sentinel}"
    ours = f"sentinel://:{SECRET}@{hosts}/{PRIMARY}/4"
    return App(";".join(nodes), ours, options={"master_name": PRIMARY})


ON_REDIS = [_tls_query, _tls_configured, _socket, _sentinels]


@pytest.mark.parametrize("way", ON_REDIS)
def test_on_redis_it_is_retried_waits_and_dies_where_the_app_is(
    way: Callable[[Redis, Certificates], App],
    redis: Redis,
    certificates: Certificates,
    servers: Servers,
    tmp_path: Path,
) -> None:
    _whole_way(way(redis, certificates), servers, tmp_path)


@pytest.fixture(scope="module")
def rabbitmq(
    certificates: Certificates, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[RabbitMQ, int]]:
    """One with TLS that wants a client's certificate, an account and a virtual host of its own."""
    port = free_port()
    server = RabbitMQ(
        tmp_path_factory.mktemp("rabbitmq"),
        f"listeners.ssl.1 = {LOOPBACK}:{port}\n"
        f"ssl_options.cacertfile = {certificates.file('ca.pem')}\n"
        f"ssl_options.certfile = {certificates.file('server.pem')}\n"
        f"ssl_options.keyfile = {certificates.file('server.key')}\n"
        "ssl_options.verify = verify_peer\n"
        "ssl_options.fail_if_no_peer_cert = true\n",
    )
    try:
        server.start()
        server.ctl("add_user", "sh:op", PASSWORD)
        server.ctl("add_vhost", "/shop")
        server.ctl("set_permissions", "-p", "/shop", "sh:op", ".*", ".*", ".*")
        yield server, port
    finally:
        server.stop()


def test_on_rabbitmq_it_is_retried_waits_and_dies_where_the_app_is(
    rabbitmq: tuple[RabbitMQ, int], certificates: Certificates, servers: Servers, tmp_path: Path
) -> None:
    _whole_way(_cluster(rabbitmq[1], certificates), servers, tmp_path)


def _cluster(port: int, certificates: Certificates) -> App:
    """The first of two hosts does not answer; the app's URLs know nothing of certificates."""
    places = (f"{LOOPBACK}:1", f"localhost:{port}")
    hosts = [f"amqps://sh%3Aop:{SECRET}@{place}//shop" for place in places]
    tls = {
        "cert_reqs": int(ssl.CERT_REQUIRED),
        "ca_certs": certificates.file("ca.pem"),
        "certfile": certificates.file("client.pem"),
        "keyfile": certificates.file("client.key"),
    }
    ours = ";".join(f"{url}?{certificates.query}" for url in hosts)
    return App(";".join(hosts), ours, tls)


@pytest.mark.parametrize("way", [_socket, _sentinels])
def test_a_worker_of_our_own_goes_that_way_too(
    way: Callable[[Redis, Certificates], App],
    redis: Redis,
    certificates: Certificates,
    start_worker: Callable[..., Worker],
) -> None:
    url = way(redis, certificates).ours
    _own_way(fresh_settings(url), start_worker)


def test_so_does_one_on_a_cluster_of_rabbitmq(
    rabbitmq: tuple[RabbitMQ, int],
    certificates: Certificates,
    servers: Servers,
    start_worker: Callable[..., Worker],
) -> None:
    url = _cluster(rabbitmq[1], certificates).ours
    _own_way(fresh_settings(servers.valkey_url(), broker_url=url), start_worker)


def _own_way(settings: Settings, start_worker: Callable[..., Worker]) -> None:
    worker = start_worker(settings=settings, queues=("exec",))
    worker.await_log(" ready.")
    with Taskyard(settings, catalogue()) as yard:
        waited = yard.enqueue("raw_act", {"n": 1}, countdown=1)
        assert yard.enqueue("raw_act", {"n": 2}).result(SOON_S) == {"n": 2}, worker.log[-4000:]
        assert waited.result(SOON_S) == {"n": 1}, worker.log[-4000:]
        # Celery's own way to a result is the backend's.
        again = yard.app.send_task("raw_act", ({"n": 3},), queue=settings.broker_name("exec"))
        assert again.get(timeout=SOON_S) == {"n": 3}
    assert PASSWORD not in worker.log


def _whole_way(app: App, servers: Servers, folder: Path) -> None:
    records = servers.valkey_url()
    settings = fresh_settings(records, broker_url=app.ours)
    legacy = Legacy(
        "protect", app.broker, records, settings, folder, options=app.options, tls=app.tls
    )
    try:
        worker = legacy.worker()
        with legacy.producer() as tasks:
            assert tasks.later.delay().get(timeout=SOON_S) == 1, worker.log[-4000:]
            failed = tasks.fail.delay("why")
            assert legacy.await_letter(failed.id).error_message == "why"
        assert "not published" not in worker.log
        assert SECRET not in worker.log
        assert PASSWORD not in worker.log
    finally:
        legacy.close()
