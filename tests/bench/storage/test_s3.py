"""S3 as a mirror, on moto's server: what another machine finds there, and what goes wrong in one line."""

import json
import socket

import pytest
import torch

from bench.config import settings
from bench.runner.executors.worker_check import WorkerCheck
from bench.runner.jobs import Job, Outcome
from bench.runner.remote import RemoteJob
from bench.storage.files import store_folder
from bench.storage.records import read_records
from bench.storage.stages import Store
from tests.conftest import TOY

pytest.importorskip("s3fs")
pytest.importorskip("flask_cors", reason="moto[server] is not there")
boto3, server = pytest.importorskip("boto3"), pytest.importorskip("moto.server")

STATE = {"model/w": torch.arange(6.0)}
INFO = {"checkpoint": False, "progress": {}}


@pytest.fixture(scope="module")
def endpoint():
    """The address of an S3 on this machine."""
    running = server.ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    running.start()
    host, port = running.get_host_and_port()
    yield f"http://{host}:{port}"
    running.stop()


@pytest.fixture
def s3(endpoint, monkeypatch):
    """A client of it, with one bucket."""
    names = {"ACCESS_KEY_ID": "x", "SECRET_ACCESS_KEY": "x", "DEFAULT_REGION": "us-east-1", "ENDPOINT_URL": endpoint}
    for name, value in names.items():
        monkeypatch.setenv(f"AWS_{name}", value)
    forget()
    client = boto3.client("s3")
    client.create_bucket(Bucket="bucket")
    yield client
    forget()


def forget():
    """As in a process that has opened nothing yet."""
    import s3fs

    from bench.storage import mirror

    mirror._open.cache_clear()
    s3fs.S3FileSystem.clear_instance_cache()


def keys(s3, prefix):
    """All names below a prefix."""
    return [item["Key"] for item in s3.list_objects_v2(Bucket="bucket", Prefix=prefix).get("Contents", [])]


def test_a_grid_on_s3(s3, bench, monkeypatch, trainings):
    """The second machine, whose cache is empty, trains nothing, and its records are the same."""
    contents, counts = [], []
    for name in ("here", "there"):
        monkeypatch.setenv("BENCH_CACHE", str(bench.folder / name))
        runs = bench.folder / "runs" / name
        assert bench.run("method=[dense,one_shot]", "store=s3://bucket/grid", f"runs={runs}") == 0
        contents.append({r.id: r.content() for r in read_records(runs)})
        counts.append(len(trainings))
    assert contents[0] == contents[1]
    assert len(contents[0]) == 3
    assert counts[0] == counts[1] == 3
    stored = keys(s3, "grid/stages/")
    assert len({key.split("/")[2] for key in stored}) == 3
    assert len(stored) == 3 * 5  # the weights, stage.json, done, and the metrics of two splits


def test_a_worker_of_a_cluster_on_s3(s3, tmp_path, monkeypatch):
    """What it trains is in the bucket, and its records come back."""
    monkeypatch.setenv("BENCH_CACHE", str(tmp_path / "cache"))
    (setting,) = settings(TOY, ["method=one_shot", "threads=1", "store=s3://bucket/worker", f"runs={tmp_path}/runs"])
    job, grid = Job(setting, 0), store_folder("s3://bucket/worker") / "grids" / "g"
    outcome = Outcome.from_json(job, RemoteJob.of(job, WorkerCheck.of(grid), grid / "1.json").run())
    assert outcome.error is None
    assert {r.id for r in outcome.records} == {r.id for r in read_records(tmp_path / "runs")}
    assert len({key.split("/")[2] for key in keys(s3, "worker/stages/")}) == 3


def test_done_is_written_last_and_once(s3, tmp_path, monkeypatch):
    monkeypatch.setenv("BENCH_CACHE", str(tmp_path / "here"))
    here, at = Store("s3://bucket/order"), "order/stages/k/5"
    put, names = here.mirror._files.put_file, []
    with monkeypatch.context() as slow:

        def watched(local, remote):
            assert f"{at}/done" not in keys(s3, at)
            put(local, remote)
            names.append(remote)

        slow.setattr(here.mirror._files, "put_file", watched)
        stage = here.put("k", 5, STATE, INFO)
    assert len(names) == 2
    sums = json.loads(s3.get_object(Bucket="bucket", Key=f"{at}/done")["Body"].read())
    assert sorted(keys(s3, at)) == sorted([f"{at}/done", *(f"{at}/{checksum}" for checksum in sums.values())])
    with pytest.raises(FileExistsError, match="pre-conditions"):  # the service itself refuses a second one
        here.mirror._files.pipe_file(f"bucket/{at}/done", b"other", mode="create")
    stage.add_evaluation("val", {"accuracy": 1.0})
    stage.add_evaluation("val", {"accuracy": 1.0})
    assert len(keys(s3, at)) == 4


def test_half_a_stage_is_never_seen(s3, tmp_path, monkeypatch):
    monkeypatch.setenv("BENCH_CACHE", str(tmp_path / "here"))
    Store("s3://bucket/half").put("k", 5, STATE, INFO)
    done = s3.get_object(Bucket="bucket", Key="half/stages/k/5/done")["Body"].read()
    s3.delete_object(Bucket="bucket", Key="half/stages/k/5/done")
    monkeypatch.setenv("BENCH_CACHE", str(tmp_path / "there"))
    there = Store("s3://bucket/half")
    assert there.latest("k", 9) is None
    s3.put_object(Bucket="bucket", Key="half/stages/k/5/done", Body=done)
    assert torch.equal(there.latest("k", 9).tensors()["model/w"], STATE["model/w"])


def test_what_goes_wrong_is_one_line(s3, bench, monkeypatch):
    monkeypatch.setenv("BENCH_CACHE", str(bench.folder / "cache"))
    assert "store=s3://none/prefix: there is no bucket none" in bench.refuses("method=dense", "store=s3://none/prefix")
    assert [bucket["Name"] for bucket in s3.list_buckets()["Buckets"]] == ["bucket"]
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{nobody.getsockname()[1]}")
        monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
        forget()
        with monkeypatch.context() as hasty:
            hasty.setattr("s3fs.S3FileSystem.retries", 1)
            assert bench.run("method=dense", "store=s3://bucket/prefix") == 1
    assert bench.err.startswith("bench: the mirror s3://bucket/prefix cannot be used (EndpointConnectionError: ")
    assert bench.err.count("\n") == 1
    for name in ("ACCESS_KEY_ID", "SECRET_ACCESS_KEY"):
        monkeypatch.delenv(f"AWS_{name}")
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(bench.folder / "none"))
    forget()
    assert bench.run("method=dense", "store=s3://bucket/prefix") == 1
    assert "NoCredentialsError" in bench.err
    assert bench.err.count("\n") == 1
