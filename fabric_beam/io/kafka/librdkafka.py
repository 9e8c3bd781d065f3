"""librdkafka, the C library that confluent_kafka brings: its functions for Python and for compiled loops.

Its Python objects, one for each message, would cost more than all the rest, so messages are taken from its C interface.

Source: https://docs.confluent.io/platform/current/clients/librdkafka/html/rdkafka_8h.html
"""

from __future__ import annotations

import ctypes
from collections.abc import Mapping
from functools import cache
from typing import Any

import numpy as np
from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from fabric_beam.errors import MissingExtraError, UsageError
from fabric_beam.views import Words, compiled, inlined

#: Where the fields of `rd_kafka_message_t` lie.
ERROR, PAYLOAD, LENGTH, KEY, KEY_LENGTH, OFFSET = 0, 24, 32, 40, 48, 56
#: Functions that compiled loops call, by their place in the array of their addresses.
TIMESTAMP, HEADERS, HEADER, DESTROY, COPY, STRLEN = range(6)
_FUNCTIONS = ("message_timestamp", "message_headers", "header_get_all", "message_destroy")
_CONSUMER = 1

ON_ERROR = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_int, ctypes.c_char_p, ctypes.c_void_p)


@cache
def library() -> tuple[Any, Words]:
    """librdkafka, and the addresses of the functions that compiled loops call.

    Raises:
        MissingExtraError: confluent_kafka is not installed.
    """
    try:
        from confluent_kafka import cimpl
    except ImportError as error:
        raise MissingExtraError("kafka:", "kafka") from error
    # Names are looked up in what a library was linked with, too.
    loaded = ctypes.CDLL(cimpl.__file__)
    pointer, text, size = ctypes.c_void_p, ctypes.c_char_p, ctypes.c_size_t
    number, long = ctypes.c_int, ctypes.c_int64
    for name, result, arguments in (
        ("conf_new", pointer, ()),
        ("conf_destroy", None, (pointer,)),
        ("conf_set", number, (pointer, text, text, text, size)),
        ("conf_set_log_cb", None, (pointer, pointer)),
        ("conf_set_error_cb", None, (pointer, ON_ERROR)),
        ("new", pointer, (number, pointer, text, size)),
        ("destroy", None, (pointer,)),
        ("poll", number, (pointer, number)),
        ("topic_new", pointer, (pointer, text, pointer)),
        ("topic_destroy", None, (pointer,)),
        ("consume_start", number, (pointer, ctypes.c_int32, long)),
        ("consume_stop", number, (pointer, ctypes.c_int32)),
        ("consume_batch", ctypes.c_ssize_t, (pointer, ctypes.c_int32, number, pointer, size)),
        ("message_errstr", text, (pointer,)),
        ("message_destroy", None, (pointer,)),
        ("query_watermark_offsets", number, (pointer, text, ctypes.c_int32, pointer, pointer, number)),
    ):
        function = getattr(loaded, f"rd_kafka_{name}")
        function.restype, function.argtypes = result, arguments
    functions = [getattr(loaded, f"rd_kafka_{name}") for name in _FUNCTIONS]
    functions += [ctypes.CDLL(None).memcpy, ctypes.CDLL(None).strlen]
    return loaded, np.array([ctypes.cast(one, pointer).value for one in functions], np.uint64)


def connect(settings: Mapping[str, str], on_error: Any) -> Any:
    """A consumer, as librdkafka knows it.

    Args:
        settings: librdkafka's own.
        on_error: an `ON_ERROR`, called with what goes wrong with its connections; must live as long as the consumer.

    Raises:
        UsageError: a setting is wrong.
    """
    rdkafka, _ = library()
    said = ctypes.create_string_buffer(512)
    conf = rdkafka.rd_kafka_conf_new()
    # What it would log on standard error is told when reading fails.
    rdkafka.rd_kafka_conf_set_log_cb(conf, None)
    rdkafka.rd_kafka_conf_set_error_cb(conf, on_error)
    client = None
    if not any(
        rdkafka.rd_kafka_conf_set(conf, name.encode(), value.encode(), said, len(said))
        for name, value in settings.items()
    ):
        client = rdkafka.rd_kafka_new(_CONSUMER, conf, said, len(said))
    if not client:
        rdkafka.rd_kafka_conf_destroy(conf)
        raise UsageError(f"kafka: {said.value.decode(errors='replace')}.")
    return client


def _load(context: Any, address: Any) -> Any:
    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.load(builder.inttoptr(arguments[0], ir.IntType(64).as_pointer()))

    return types.uint64(types.uint64), generate


def _call(context: Any, function: Any, arguments: Any) -> Any:
    def generate(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        word = ir.IntType(64)
        words = [builder.extract_value(values[1], place) for place in range(len(arguments))]
        kind = ir.FunctionType(word, [word] * len(words))
        return builder.call(builder.inttoptr(values[0], kind.as_pointer()), words)

    return types.uint64(types.uint64, arguments), generate


#: `load(address)`, in a compiled loop: the word at an address.
load: Any = intrinsic(_load)
#: `call(address, (word, …))`, in a compiled loop: what the C function at an address returns. Addresses are arguments of
#: the loops, not parts of them, so that their code can be kept for other processes.
call: Any = intrinsic(_call)


@inlined
def is_error(code: Any) -> Any:
    """Whether what a C function returned, of which 32 bits are meant, says that it failed."""
    return code & np.uint64(0xFFFFFFFF) != np.uint64(0)


@compiled
def destroy(functions: Words, messages: Words) -> None:
    """Give messages back, by their addresses; a zero is none."""
    for message in messages:
        if message:
            call(functions[DESTROY], (message,))
