"""The private interfaces of PyFlink and Beam that the Flink runner stands on; nothing else in the project uses any.

`tests/runners/test_flink_seams.py` names each one, so that an upgrade that moves one fails there.
"""

from __future__ import annotations

import builtins
import contextlib
import logging
import os
import queue
import sys
import tempfile
import threading
import time
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

#: Java classes of Flink, by name, that are not part of its public interface.
PARTITIONER = "org.apache.flink.python.legacy.IdPartitioner"
KEY_SELECTOR = "org.apache.flink.streaming.api.functions.python.PartitionCustomKeySelector"
PYTHON_CONFIG = "org.apache.flink.python.util.PythonConfigUtil"
MINI_CLUSTER = "org.apache.flink.runtime.minicluster.MiniCluster"
MINI_CLUSTER_CONFIGURATION = "org.apache.flink.runtime.minicluster.MiniClusterConfiguration"

#: The setting that gives a job its id.
JOB_ID = "$internal.pipeline.job-id"

_HUNG_UP = "Multiplexer hanging up"
_READER = "read_grpc_client_inputs"
_MESSAGE = 1 << 20
_IN_MEMORY = 4

_lock = threading.Lock()


def share_registries() -> None:
    """Let PyFlink's operators and Beam's own run in one process.

    PyFlink puts its own implementation in the place of Beam's ParDo and of Beam's length prefix coder. Here both are
    kept and told apart: by the URN of the function, and by the coder inside.
    """
    from apache_beam.coders import coders
    from apache_beam.portability import common_urns
    from apache_beam.portability.api import beam_runner_api_pb2
    from apache_beam.runners.worker import bundle_processor

    par_do_urn, prefix_urn = common_urns.primitives.PAR_DO.urn, common_urns.coders.LENGTH_PREFIX.urn
    with _lock:
        from pyflink.fn_execution.beam import beam_coders, beam_operations, beam_stream_fast, beam_stream_slow

        registry = bundle_processor.BeamTransformFactory._known_urns
        flink_par_do = beam_operations.create_data_stream_keyed_process_function
        flink_prefix = beam_coders.PassThroughLengthPrefixCoder

        def par_do(factory: Any, transform_id: str, transform: Any, payload: Any, consumers: Any) -> Any:
            is_flink = payload.do_fn.urn.startswith("flink:")
            create = flink_par_do if is_flink else bundle_processor.create_par_do
            return create(factory, transform_id, transform, payload, consumers)

        def length_prefix(_: Any, components: Sequence[Any], __: Any) -> Any:
            [inner] = components
            return (flink_prefix if isinstance(inner, beam_coders.FlinkCoder) else coders.LengthPrefixCoder)(inner)

        for stream in (beam_stream_fast, beam_stream_slow):
            stream.PeriodicThread = _Never
        registry[par_do_urn] = (par_do, beam_runner_api_pb2.ParDoPayload)
        coders.Coder._known_urns[prefix_urn] = (None, length_prefix)


def end_with_task_manager() -> None:
    """End this worker soon after the TaskManager that started it, which kill -9 may have ended.

    Its connections do not always notice. PyFlink starts workers by a shell, whose parent the TaskManager is.
    """
    if sys.argv[0].endswith("beam_boot.py"):
        threading.Thread(target=_watch, args=(os.getppid(),), daemon=True).start()


def _watch(shell: int) -> None:
    task_manager = _parent(shell)
    while _parent(shell) == task_manager:
        time.sleep(1)
    os._exit(1)


def _parent(process: int) -> str | None:
    """The id of a process's parent; None without such a process, or where the system does not tell."""
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[1]
    except OSError:
        return None


class _Never:
    """In the place of the thread that PyFlink starts for every coder, many of which nobody ever stops.

    It would flush what a bundle puts out after a second. Ten megabytes and the end of a bundle do that too.
    """

    daemon = False

    def __init__(self, *_: Any) -> None:
        pass

    def start(self) -> None:
        pass

    def cancel(self) -> None:
        pass


def run_worker(worker_id: str, provision_endpoint: str) -> None:
    """Serve a Flink slot from this process, as PyFlink's Python worker would; returns when Flink has done with it.

    Args:
        worker_id: what Flink calls the worker.
        provision_endpoint: where it tells about itself.
    """
    import grpc
    from apache_beam.portability.api import beam_provision_api_pb2, beam_provision_api_pb2_grpc
    from apache_beam.runners.worker import sdk_worker

    share_registries()
    with grpc.insecure_channel(provision_endpoint) as channel:
        stub = beam_provision_api_pb2_grpc.ProvisionServiceStub(channel)
        request = beam_provision_api_pb2.GetProvisionInfoRequest()
        info = stub.GetProvisionInfo(request, metadata=[("worker_id", worker_id)]).info
    sdk_worker.SdkHarness(control_address=info.control_endpoint.url, worker_id=worker_id).run()


def restore_print() -> None:
    """Give Python's own `print` back in a worker of PyFlink's, whose one knows neither `flush` nor `file=None`."""
    replaced = getattr(builtins.print, "__self__", None)
    if type(replaced).__name__ == "CustomPrint":
        builtins.print = replaced._print  # type: ignore[union-attr]


@cache
def quiet() -> None:
    """Keep what Beam's worker says about its own connections from people."""
    import grpc
    from apache_beam.runners.worker import data_plane

    logging.getLogger("apache_beam.runners.worker").setLevel(logging.CRITICAL)
    read_inputs = data_plane._GrpcDataChannel._read_inputs

    def read_until_hung_up(channel: Any, elements: Any) -> None:
        # Flink may hang up before the worker does. A bundle that waits for inputs gets the error from the channel;
        # raised here, it would only be a traceback of a thread, after a run that went well.
        try:
            read_inputs(channel, elements)
        except grpc.RpcError as error:
            if _HUNG_UP not in str(error):
                raise

    data_plane._GrpcDataChannel._read_inputs = read_until_hung_up


class _Spooled(queue.Queue[Any]):
    """Beam's queue of what a worker has put out; what is behind the first few is on disk."""

    def _put(self, item: Any) -> None:
        if len(self.queue) >= _IN_MEMORY and getattr(item, "data", None):
            data = item.SerializeToString()
            if not hasattr(self, "_file"):
                self._file = tempfile.TemporaryFile(buffering=0)  # noqa: SIM115
            self._file.write(data)
            item = (type(item), self._file.tell() - len(data), len(data))
        self.queue.append(item)

    def _get(self) -> Any:
        item = self.queue.popleft()
        if isinstance(item, tuple):
            kind, at, size = item
            item = kind.FromString(os.pread(self._file.fileno(), size, at))
            if not self.queue:
                self._file.seek(0)
                self._file.truncate()
        return item


@cache
def spool_output() -> None:
    """Keep what a stage puts out on disk: Flink takes a hundred messages of it before the stage is through, no more."""
    from apache_beam.runners.worker import data_plane

    output_stream = data_plane._GrpcDataChannel.output_stream

    def spooled(channel: Any, instruction_id: str, transform_id: str) -> Any:
        # The channel may be older than this, and its other end wait for the queue already.
        channel._to_send.__class__ = _Spooled
        stream = output_stream(channel, instruction_id, transform_id)
        # Beam's ten megabytes, a hundred times, are more than a TaskManager has.
        stream._size_flush_threshold = _MESSAGE
        return stream

    data_plane._GrpcDataChannel.output_stream = spooled
    data_plane._DEFAULT_SIZE_FLUSH_THRESHOLD = _MESSAGE


def end_without_connection() -> None:
    """End a worker of a session cluster when it loses the connection that its data goes by.

    A TaskManager drops it that has no memory left to take what arrives. Beam's worker would then say that the bundle is
    done, and Flink wait for what the bundle put out. A worker that ends is started anew.
    """
    if sys.argv[0].endswith("beam_boot.py"):
        before = threading.excepthook

        def end(args: threading.ExceptHookArgs) -> None:
            before(args)
            if args.thread is not None and args.thread.name == _READER and _HUNG_UP not in str(args.exc_value):
                os._exit(1)

        threading.excepthook = end


def java_options() -> str:
    """The options that PyFlink's own configuration starts its JVM with, as a line."""
    from pyflink.pyflink_gateway_server import get_jvm_opts, prepare_environment_variables

    environment = dict(os.environ)
    prepare_environment_variables(environment)
    return " ".join(get_jvm_opts(environment))


def gateway(environment: Mapping[str, str]) -> Any:
    """PyFlink's gateway to its JVM, which is started if need be.

    Args:
        environment: variables for the JVM; those that are set already win.
    """
    from pyflink import java_gateway

    if java_gateway._gateway is None:
        added = {name: value for name, value in environment.items() if name not in os.environ}
        os.environ.update(added)
        try:
            java_gateway.get_gateway()
            # What it logs when the JVM goes is said better elsewhere.
            logging.getLogger("py4j.java_gateway").setLevel(logging.CRITICAL)
        finally:
            for name in added:
                del os.environ[name]
    return java_gateway.get_gateway()


def halt_java() -> None:
    """End PyFlink's JVM at once, if there is one."""
    from pyflink import java_gateway

    running, java_gateway._gateway = java_gateway._gateway, None
    if running is not None:
        # It cannot answer any more, and py4j would log that: now, and whenever an object of it is collected.
        logging.getLogger("py4j.java_gateway").setLevel(logging.CRITICAL)
        level = logging.root.manager.disable
        logging.disable(logging.CRITICAL)
        with contextlib.suppress(Exception):
            running.jvm.java.lang.Runtime.getRuntime().halt(0)
        with contextlib.suppress(Exception):
            running.shutdown()
        logging.disable(level)


def java(name: str) -> Any:
    """A Java class, by its full name."""
    from pyflink.java_gateway import get_gateway

    found = get_gateway().jvm
    for part in name.split("."):
        found = getattr(found, part)
    return found


def process(stream: Any, function: Any, output: Any, name: str, parallelism: int) -> Any:
    """Put a Python function behind a Java DataStream.

    Args:
        stream: Java's DataStream.
        function: PyFlink's ProcessFunction.
        output: PyFlink's type of what it yields.
        name: of the operator.
        parallelism: its subtasks.

    Returns:
        Java's DataStream of its main output.
    """
    from pyflink.datastream.data_stream import DataStream

    return DataStream(stream).process(function, output).name(name).set_parallelism(parallelism)._j_data_stream


def add_output_tags(stream: Any, tags: Sequence[Any]) -> None:
    """Tell a Python operator of its side outputs; PyFlink finds them itself only if another Python operator reads them.

    Args:
        stream: Java's DataStream that the operator makes.
        tags: Java's OutputTags.
    """
    stream.getTransformation().getOperatorFactory().getOperator().addSideOutputTags(tags)
