"""Sixty-four bytes of a text compared at once, in compiled loops: numba has no such instructions of its own."""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba import types
from numba.extending import intrinsic

#: How many bytes are compared at once; behind a text that many must be readable.
WIDTH = 64


def _compared(operator: str) -> Any:
    def compare(context: Any, text: Any, at: Any, byte: Any) -> Any:
        def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            array = context.make_array(signature.args[0])(context, builder, arguments[0])
            vector = ir.VectorType(ir.IntType(8), WIDTH)
            block = builder.bitcast(builder.gep(array.data, [arguments[1]]), vector.as_pointer())
            found = builder.load(block, align=1)
            one = builder.insert_element(
                ir.Constant(vector, ir.Undefined), arguments[2], ir.Constant(ir.IntType(32), 0)
            )
            everywhere = ir.Constant(ir.VectorType(ir.IntType(32), WIDTH), [0] * WIDTH)
            other = builder.shuffle_vector(one, ir.Constant(vector, ir.Undefined), everywhere)
            return builder.bitcast(builder.icmp_unsigned(operator, found, other), ir.IntType(WIDTH))

        return types.uint64(text, types.int64, types.uint8), generate

    return intrinsic(compare)


def _count(context: Any, bits: Any) -> Any:
    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.ctpop(arguments[0])

    return types.int64(types.uint64), generate


def _first(context: Any, bits: Any) -> Any:
    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.cttz(arguments[0], ir.Constant(ir.IntType(1), 1))

    return types.int64(types.uint64), generate


#: `equal(text, at, byte)`: a bit for each of the 64 bytes from `at` on of a text, which lies in one piece; the first
#: one's is the lowest, and set where it is that byte; `below` and `above`: where it is less or more.
equal: Any = _compared("==")
below: Any = _compared("<")
above: Any = _compared(">")
#: `count(bits)`: how many are set.
count: Any = intrinsic(_count)
#: `first(bits)`: the number of the lowest bit that is set; one must be.
first: Any = intrinsic(_first)
