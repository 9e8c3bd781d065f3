"""The private interfaces that the Flink runner uses are there: an upgrade that moves one fails here, by its name."""

from __future__ import annotations

import inspect
import threading
import zipfile
from concurrent.futures import ThreadPoolExecutor
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import grpc
import pytest
from apache_beam.portability.api import beam_fn_api_pb2_grpc
from apache_beam.runners.worker import data_plane

from fabric_beam.runners.flink import seams

pytestmark = pytest.mark.skipif(find_spec("pyflink") is None, reason="PyFlink is not installed")


def _home() -> Path:
    import pyflink

    return Path(pyflink.__file__).parent


@pytest.mark.parametrize(
    "name",
    [
        "apache_beam.coders.coders.Coder._known_urns",
        "apache_beam.coders.coders.LengthPrefixCoder",
        "apache_beam.runners.worker.bundle_processor.BeamTransformFactory._known_urns",
        "apache_beam.runners.worker.bundle_processor.create_par_do",
        "apache_beam.runners.worker.data_plane._GrpcDataChannel._read_inputs",
        "apache_beam.runners.worker.data_plane._GrpcDataChannel.output_stream",
        "apache_beam.runners.worker.data_plane._DEFAULT_SIZE_FLUSH_THRESHOLD",
        "apache_beam.runners.worker.sdk_worker.SdkHarness.run",
        "apache_beam.portability.api.beam_provision_api_pb2_grpc.ProvisionServiceStub",
        "pyflink.fn_execution.beam.beam_coders.FlinkCoder",
        "pyflink.fn_execution.beam.beam_coders.PassThroughLengthPrefixCoder",
        "pyflink.fn_execution.beam.beam_operations.create_data_stream_keyed_process_function",
        "pyflink.fn_execution.beam.beam_stream_fast.PeriodicThread",
        "pyflink.fn_execution.beam.beam_stream_slow.PeriodicThread",
        "pyflink.fn_execution.beam.beam_sdk_worker_main.CustomPrint",
        "pyflink.datastream.data_stream.DataStream.set_parallelism",
        "pyflink.java_gateway._gateway",
        "pyflink.pyflink_gateway_server.get_jvm_opts",
        "pyflink.pyflink_gateway_server.prepare_environment_variables",
    ],
)
def test_python_names_are_there(name: str) -> None:
    """Every private Python name that is used exists."""
    parts = name.split(".")
    for length in range(len(parts), 0, -1):
        try:
            found = import_module(".".join(parts[:length]))
        except ImportError:
            continue
        break
    for part in parts[length:]:
        found = getattr(found, part)


@pytest.mark.parametrize(
    "name",
    [
        seams.PARTITIONER,
        seams.KEY_SELECTOR,
        seams.PYTHON_CONFIG,
        seams.MINI_CLUSTER,
        seams.MINI_CLUSTER_CONFIGURATION,
        "org.apache.flink.runtime.entrypoint.StandaloneSessionClusterEntrypoint",
        "org.apache.flink.runtime.taskexecutor.TaskManagerRunner",
        "org.apache.flink.streaming.api.operators.python.process.ExternalPythonProcessOperator",
    ],
)
def test_java_classes_are_there(name: str) -> None:
    """Every Java class that is used without being public is in one of PyFlink's jars."""
    home = _home()
    jars = [*(home / "lib").glob("flink-dist-*.jar"), *(home / "opt").glob("flink-python-*.jar")]
    path = name.replace(".", "/") + ".class"
    assert any(path in zipfile.ZipFile(jar).namelist() for jar in jars)


def test_flink_starts_workers_by_the_script_that_boot_stands_in_for() -> None:
    """PyFlink's script runs `$python -m pyflink.fn_execution.beam.beam_boot` with the arguments that `boot` reads."""
    text = (_home() / "bin" / "pyflink-udf-runner.sh").read_text()
    assert "${python} -m pyflink.fn_execution.beam.beam_boot $@" in text
    source = (_home() / "fn_execution" / "beam" / "beam_boot.py").read_text()
    assert '"--id"' in source
    assert '"--provision_endpoint"' in source


def test_a_stream_of_pyflink_holds_that_of_java() -> None:
    """`_j_data_stream` is the Java object that a PyFlink stream was made of."""
    from pyflink.datastream.data_stream import DataStream

    java = object()
    assert DataStream(java)._j_data_stream is java


def test_both_registrations_live_side_by_side() -> None:
    """With PyFlink's operators in the process, Beam's own length prefix coder still prefixes."""
    seams.share_registries()
    from apache_beam.coders.coders import BytesCoder, Coder, LengthPrefixCoder
    from apache_beam.runners.pipeline_context import PipelineContext
    from apache_beam.runners.worker import bundle_processor

    context = PipelineContext()
    coder = Coder.from_runner_api(LengthPrefixCoder(BytesCoder()).to_runner_api(context), context)
    assert coder.encode(b"ab") == b"\x02ab"
    create, _ = bundle_processor.BeamTransformFactory._known_urns["beam:transform:pardo:v1"]
    assert len(inspect.signature(create).parameters) == 5


def test_workers_are_started_by_a_shell() -> None:
    """A worker's grandparent is the TaskManager, and its program is `beam_boot`."""
    import pyflink

    script = (Path(pyflink.__file__).parent / "bin" / "pyflink-udf-runner.sh").read_text()
    assert "-m pyflink.fn_execution.beam.beam_boot $@ 2>&1 | tee" in script


@pytest.mark.parametrize(("details", "told"), [("Multiplexer hanging up", 0), ("no such worker", 1)])
def test_only_that_flink_hangs_up_is_not_told(details: str, told: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """A data connection that Flink ends when it is done leaves no traceback; another error does."""

    class Data(beam_fn_api_pb2_grpc.BeamFnDataServicer):
        def Data(self, _: Any, context: Any) -> Any:
            context.abort(grpc.StatusCode.CANCELLED, details)

    seams.quiet()
    tracebacks: list[Any] = []
    monkeypatch.setattr(threading, "excepthook", tracebacks.append)
    server = grpc.server(ThreadPoolExecutor(1))
    beam_fn_api_pb2_grpc.add_BeamFnDataServicer_to_server(Data(), server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    before = set(threading.enumerate())
    with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
        data = data_plane.GrpcClientDataChannel(beam_fn_api_pb2_grpc.BeamFnDataStub(channel))
        for thread in set(threading.enumerate()) - before:
            if thread.name == "read_grpc_client_inputs":
                thread.join()
        data._to_send.put(data._WRITES_FINISHED)
    server.stop(None)
    assert len(tracebacks) == told


def test_what_is_put_out_waits_on_disk() -> None:
    """A data channel gives every message in its order, whether it waited in memory or on disk, more than once."""
    seams.spool_output()
    channel = data_plane._GrpcDataChannel()
    for _ in range(2):
        stream = channel.output_stream("bundle", "out")
        values = [bytes([n]) * (1 << 18) for n in range(40)]
        for value in values:
            stream.write(value)
            stream.maybe_flush()
        stream.close()
        assert sum(isinstance(waiting, tuple) for waiting in channel._to_send.queue) > 1
        sent = b""
        while not (element := channel._to_send.get()).is_last:
            sent += element.data
        assert sent == b"".join(values)
    channel.close()
