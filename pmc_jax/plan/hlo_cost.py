"""What a compiled program multiplies and moves, loops included: read from its HLO text.

XLA's own account counts the body of a loop once, and that of a program with its layers in a loop is nearly all body.
Here a body counts as often as it runs, where its condition says how often; a loop that ends by what it computes, such
as a chunk of decode steps, counts once.

An operation reads its operands and writes its result once, in the chip's tiles. A fused one does so for all that is in
it. Of what it only takes slices or gathers from, it reads these; of what it updates in place, it writes the update.
What lies in a TPU's fast memory costs nothing; what is copied there is read once. What an asynchronous collective hands
through the operations beside it is not counted again.
"""

import functools
import re
from collections import Counter
from typing import NamedTuple

from pmc_jax.plan import collectives
from pmc_jax.plan.collectives import COLLECTIVES, Collective
from pmc_jax.plan.hlo import Computation, Module, Operation, anywhere, product_flops, size_of

FREE = {"parameter", "constant", "tuple", "get-tuple-element", "bitcast", "after-all", "partition-id", "opt-barrier"}
SLICES = {"dynamic-slice", "slice", "gather"}
DONE = "async-collective-done"  # counted where it starts
SAME = {"bitcast", "get-tuple-element", "opt-barrier"}  # another name for what lies there


class Cost(NamedTuple):
    """flops: of products. bytes: read and written. seconds: of each operation, by the longer of its products and its
    bytes, one after the other.
    """

    flops: float
    bytes: float
    seconds: float

    def plus(self, other: "Cost", times: int = 1) -> "Cost":
        """This cost and the other one, so many times."""
        return Cost(*(a + times * b for a, b in zip(self, other)))


NOTHING = Cost(0.0, 0.0, 0.0)


class Account:
    """The cost of the computations of one module.

    Attributes:
        computations: of the module, by name.
        flops: FLOP/s of the chip.
        bandwidth: bytes/s of its memory.
    """

    def __init__(self, computations: dict[str, Computation], flops: float, bandwidth: float):
        self.computations, self.flops, self.bandwidth = computations, flops, bandwidth
        self.cost = functools.lru_cache(maxsize=None)(self._cost)
        self.products = functools.lru_cache(maxsize=None)(self._products)
        self.read = functools.lru_cache(maxsize=None)(self._read)

    def _cost(self, name: str) -> Cost:
        """Of one run of a computation."""
        computation, total = self.computations[name], NOTHING
        for op in computation.operations.values():
            if op.kind == "while":
                total = total.plus(self.cost(op.called("body")), self.trips(op))
            elif op.kind == "conditional":
                branches = re.findall(r"%([\w.\-]+)", op.rest.split("branch_computations=")[-1].split("}")[0])
                total = total.plus(max((self.cost(b) for b in branches if b in self.computations), default=NOTHING))
            elif op.kind in ("call", "async-start"):
                total = total.plus(self.cost(op.called("to_apply") or op.called()))
            elif op.kind not in FREE and not op.kind.endswith("-done") and not op.name.startswith(DONE):
                total = total.plus(self.one(computation, op))
        return total

    def one(self, computation: Computation, op: Operation) -> Cost:
        """Of an operation, with all that is fused into it."""
        inside = self.computations.get(op.called()) if op.kind == "fusion" else None
        if inside is None:
            moved = sum(self.taken(computation, op, i) for i in range(len(op.operands)))
            # The result of what starts asynchronously comes first; then come its operands again.
            moved += (
                size_of(op.shape.split(", ")[0]) if op.kind.endswith("-start") else self.written(computation, op.name)
            )
            flops = product_flops(computation, op)
        else:
            numbers = {int(x.operands[0]): x.name for x in inside.operations.values() if x.kind == "parameter"}
            through = handed_through(op)
            reads = (self.read(op.called(), numbers[i]) for i in range(len(op.operands)) if i not in through.values())
            moved = sum(reads) + self.written(inside, inside.root, tuple(through))
            flops = self.products(op.called())
        return Cost(flops, moved, max(flops / self.flops, moved / self.bandwidth))

    def _products(self, name: str) -> float:
        """FLOPs of the products in a fused computation."""
        computation = self.computations[name]
        return sum(
            self.products(op.called()) if op.kind == "fusion" else product_flops(computation, op)
            for op in computation.operations.values()
        )

    def _read(self, name: str, value: str) -> float:
        """Bytes that a fused computation reads of one of its values."""
        computation = self.computations[name]
        total = float(size_of(computation.operations[value].shape)) if value == computation.root else 0.0
        for op in computation.operations.values():
            for i in (i for i, operand in enumerate(op.operands) if operand == value and op.kind != "parameter"):
                total += self.taken(computation, op, i, name)
        return min(total, size_of(computation.operations[value].shape))

    def taken(self, computation: Computation, op: Operation, i: int, name: str = "") -> float:
        """Bytes that an operation reads of its operand number i; name: of the computation where that is a fused one."""
        operand = computation.operations.get(op.operands[i])
        whole = size_of(operand.shape) if operand else 0
        if op.kind in SLICES:
            return min(whole, anywhere(op.shape)) if i == 0 else whole
        if op.kind == "dynamic-update-slice" and i == 0:
            return 0.0
        if op.kind == "tuple" or (name and op.kind in COLLECTIVES):
            return 0.0
        if name and op.kind in SAME:
            return self.read(name, op.name)
        if op.kind == "fusion" and op.called() in self.computations:
            inside = self.computations[op.called()].operations.values()
            parameter = next(x.name for x in inside if x.kind == "parameter" and x.operands[0] == str(i))
            return self.read(op.called(), parameter)
        return whole

    def written(self, computation: Computation, name: str, through: tuple[int, ...] = ()) -> float:
        """Bytes of a result that are written: the update of what is updated in place, nothing of what is handed
        through, the parts of these numbers among it.
        """
        op = computation.operations[name]
        if op.kind == "tuple":
            return sum(self.written(computation, x) for i, x in enumerate(op.operands) if i not in through)
        if op.kind in SAME and op.operands and op.operands[0] in computation.operations:
            return self.written(computation, op.operands[0])
        if op.kind == "dynamic-update-slice":
            return min(size_of(op.shape), anywhere(computation.operations[op.operands[1]].shape))
        if op.kind == "fusion" and op.called() in self.computations:
            inside = self.computations[op.called()]
            return self.written(inside, inside.root)
        return 0.0 if op.kind == "parameter" else size_of(op.shape)

    def trips(self, loop: Operation) -> int:
        """How often a loop runs: as XLA says, or the constant that its counter is compared with; otherwise 1."""
        if known := re.search(r'"known_trip_count":\{"n":"(\d+)"', loop.rest):
            return int(known[1])
        condition = self.computations[loop.called("condition")]
        root = condition.operations[condition.root]
        if root.kind != "compare" or "direction=LT" not in root.rest:
            return 1
        limit = condition.operations[root.operands[1]]
        return int(limit.operands[0]) if limit.kind == "constant" else 1


def handed_through(op: Operation) -> dict[int, int]:
    """{part of the result: operand} of a fusion through which an asynchronous collective hands its buffers."""
    if not op.called().startswith("async_collective"):
        return {}
    pairs = re.search(r"output_to_operand_aliasing=\{(.*?\))\}", op.rest)
    return {int(i): int(j) for i, j in re.findall(r"\{(\d+)\}: \((\d+)", pairs[1])} if pairs else {}


def cost(module: Module, flops: float, bandwidth: float) -> Cost:
    """The cost of a program.

    Args:
        module: compiled.
        flops: FLOP/s of the chip.
        bandwidth: bytes/s of its memory.
    """
    return Account(module.computations, flops, bandwidth).cost(module.entry)


def sent(module: Module) -> dict[Collective, int]:
    """How often a program sends each kind of collective."""
    computations, times = module.computations, Counter()
    account = Account(computations, 1.0, 1.0)

    def visit(name: str, runs: int) -> None:
        times[name] += runs
        for op in computations[name].operations.values():
            body = op.called("body")
            for called in (body, *map(op.called, ("calls", "to_apply", "condition"))):
                if called in computations:
                    visit(called, runs * (account.trips(op) if called == body else 1))

    visit(module.entry, 1)
    counts = Counter()
    for collective, computation in collectives.collectives(module):
        counts[collective] += times[computation]
    return dict(sorted(counts.items()))


def float32_products(module: Module) -> int:
    """Matrix products both of whose operands are float32."""
    products = set()
    for computation in module.computations.values():
        for op in computation.operations.values():
            if op.kind in ("convolution", "dot"):
                known = [computation.operations.get(name) for name in op.operands[:2]]
                if all(operand and operand.shape.startswith("f32") for operand in known):
                    products.add(re.sub(r"\.clone.*|\.\d+$", "", op.name) + op.shape)
    return len(products)
