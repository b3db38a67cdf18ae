"""Two ways to reach the server: through Sentinel, across a failover, and through TLS."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from redis import Redis
from redis.exceptions import RedisError

from servers import RedisServer, free_port, redis_program, require_or_skip
from support.waiting import eventually
from support.worker import Worker
from support.yard import ServerHarness, catalogue, fresh_settings
from taskyard.client import JobHandle, Taskyard
from taskyard.errors import PublishFailed, ServerUnreachable
from taskyard.ops.embedded.port_and_passwords import LOOPBACK
from taskyard.ops.embedded.supervised_server import Program, SupervisedServer

PRIMARY = "yard"


@dataclass
class Watched:
    """A primary, its replica and one Sentinel."""

    primary: RedisServer
    replica: RedisServer
    sentinel: SupervisedServer
    url: str


@pytest.fixture
def watched(tmp_path: Path) -> Iterator[Watched]:
    primary = RedisServer(tmp_path / "primary")
    primary.start()
    replica = RedisServer(tmp_path / "replica", ["--replicaof", f"{LOOPBACK} {primary.port}"])
    replica.start()
    port = free_port()
    configuration = tmp_path / "sentinel.conf"
    configuration.write_text(
        f"port {port}\nbind {LOOPBACK}\ndir {tmp_path}\n"
        f"sentinel monitor {PRIMARY} {LOOPBACK} {primary.port} 1\n"
        f"sentinel down-after-milliseconds {PRIMARY} 1000\n"
        f"sentinel failover-timeout {PRIMARY} 6000\n"
    )
    argv = [str(redis_program()), str(configuration), "--sentinel"]
    sentinel = SupervisedServer(Program(argv=argv, log=tmp_path / "sentinel.log", cwd=tmp_path))
    try:
        with Redis(host=LOOPBACK, port=port) as client:
            eventually(lambda: _knows_replica(client), "Sentinel knows the replica")
        # The first Sentinel does not answer.
        url = f"sentinel://{LOOPBACK}:1,{LOOPBACK}:{port}/{PRIMARY}/0"
        yield Watched(primary, replica, sentinel, url)
    finally:
        sentinel.stop()
        replica.stop()
        primary.stop()


def _knows_replica(client: Redis) -> bool:
    try:
        found = client.execute_command("SENTINEL", "REPLICAS", PRIMARY)
    except RedisError:
        return False
    return bool(found)


def test_a_worker_follows_sentinel_to_the_promoted_replica(
    watched: Watched, start_worker: Callable[..., Worker]
) -> None:
    settings = fresh_settings(watched.url)
    worker = start_worker(settings=settings, queues=("exec",))
    worker.await_log(" ready.")
    with Taskyard(settings, catalogue()) as yard:
        before = [yard.enqueue("raw_act", {"n": number}) for number in range(20)]
        assert [job.result(30) for job in before] == [{"n": number} for number in range(20)]
        eventually(lambda: _lag(watched) == 0, "the replica has all")
        watched.primary.stop()
        first = eventually(lambda: _enqueued(yard), "the promoted replica takes jobs", within_s=60)
        assert first.result(60) == {}, worker.log[-4000:]
        after = [yard.enqueue("raw_act", {"n": number}) for number in range(20)]
        assert [job.result(30) for job in after] == [{"n": number} for number in range(20)]
    assert worker.running


def _lag(watched: Watched) -> int:
    with Redis.from_url(watched.primary.url) as one, Redis.from_url(watched.replica.url) as other:
        ahead = int(one.info("replication")["master_repl_offset"])
        return ahead - int(other.info("replication")["slave_repl_offset"])


def _enqueued(yard: Taskyard) -> JobHandle | None:
    try:
        return yard.enqueue("raw_act", {})
    except (ServerUnreachable, PublishFailed, RedisError):
        return None


@pytest.fixture
def tls_url(tmp_path: Path) -> Iterator[str]:
    """A server that speaks nothing but TLS, with a certificate made here."""
    key, certificate = tmp_path / "key.pem", tmp_path / "certificate.pem"
    if shutil.which("openssl") is None:
        require_or_skip("openssl")
    words = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2"]
    words += ["-subj", "/CN=127.0.0.1", "-addext", "subjectAltName=IP:127.0.0.1"]
    words += ["-keyout", str(key), "-out", str(certificate)]
    subprocess.run(words, check=True, capture_output=True)
    port = free_port()
    argv = [str(require_or_skip("redis-server")), "--port", "0", "--bind", LOOPBACK]
    argv += ["--tls-port", str(port), "--tls-cert-file", str(certificate), "--save", ""]
    argv += ["--tls-key-file", str(key), "--tls-ca-cert-file", str(certificate)]
    argv += ["--tls-auth-clients", "no", "--dir", str(tmp_path)]
    server = SupervisedServer(Program(argv=argv, log=tmp_path / "tls.log", cwd=tmp_path))
    url = f"rediss://{LOOPBACK}:{port}/0?ssl_cert_reqs=required&ssl_ca_certs={certificate}"
    try:
        eventually(lambda: _answers(url), "the TLS server answers", why=server.log_tail)
        yield url
    finally:
        server.stop()


def _answers(url: str) -> bool:
    with Redis.from_url(url) as client:
        try:
            return bool(client.ping())
        except RedisError:
            return False


def test_jobs_travel_through_tls_with_the_server_verified(
    tls_url: str, start_worker: Callable[..., Worker]
) -> None:
    settings = fresh_settings(tls_url)
    harness = ServerHarness(settings)
    worker = start_worker(settings=settings, queues=("exec",))
    worker.await_log(" ready.")
    jobs = [harness.act(value=number) for number in range(10)]
    assert [job.result(30) for job in jobs] == list(range(10)), worker.log[-4000:]
    harness.await_quiet()
    harness.close()
