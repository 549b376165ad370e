"""Heads that adapt, as nodes of an ONNX graph, for any number of classes and of support pictures.

ONNX has no solver of linear systems and no gradient, so that both are written as loops: elimination
without pivots, which a positive definite system does not need, and Nesterov's accelerated gradient with
restarts (O'Donoghue, Candes 2015, "Adaptive Restart for Accelerated Gradient Schemes", arXiv:1204.3982). Its
step is that of a bound on the curvature: the Hessian of a cross-entropy in its logits is at most 1/2. Both
run in double precision, so that they are no farther from the minimum than torch is.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from lightning_metakd.export.packages import package
from lightning_metakd.learners.learner import Learner
from lightning_metakd.learners.logistic import Logistic
from lightning_metakd.learners.protonet import ProtoNet
from lightning_metakd.learners.ridge import Ridge

FLOAT, INT64, BOOL, DOUBLE = 1, 7, 9, 11
"""Types of tensors, as ONNX numbers them."""
LAST = np.iinfo(np.int64).max
MOST_STEPS, TOLERANCE = 5_000, 1e-9
"""Most steps of the accelerated gradient, and the largest entry of the mean gradient at which it ends."""


class Nodes:
    """Collects the nodes of a graph: a call adds one and returns the name of what it computes.

    Args:
        prefix: of all names, which tells them from those of other graphs.
    """

    def __init__(self, prefix: str) -> None:
        self.prefix, self.nodes = prefix, list[Any]()

    def __call__(self, operator: str, *inputs: str, **attributes: Any) -> str:
        return self.several(operator, inputs, 1, **attributes)[0]

    def several(
        self, operator: str, inputs: Sequence[str], outputs: int, **attributes: Any
    ) -> list[str]:
        """Add a node, and return the names of its outputs."""
        name = f"{self.prefix}{len(self.nodes)}_{operator}"
        names = [f"{name}_{k}" for k in range(outputs)]
        make_node = package("onnx.helper").make_node
        self.nodes.append(make_node(operator, list(inputs), names, name=name, **attributes))
        return names

    def into(self, output: str, operator: str, *inputs: str, **attributes: Any) -> None:
        """Add a node whose output has a name of its own."""
        self(operator, *inputs, **attributes)
        self.nodes[-1].output[0] = output

    def constant(self, value: Any, dtype: type = np.float64) -> str:
        """A number or an array."""
        array = package("onnx.numpy_helper").from_array(np.asarray(value, dtype=dtype))
        return self("Constant", value=array)

    def whole(self, *numbers: int) -> str:
        """A list of whole numbers, as axes and shapes are."""
        return self.constant(numbers, np.int64)

    def transpose(self, x: str) -> str:
        """A matrix with rows and columns exchanged."""
        return self("Transpose", x, perm=[1, 0])

    def size(self, x: str, axis: int) -> str:
        """Entries of an axis, as a scalar."""
        return self("Gather", self("Shape", x), self.constant(axis, np.int64), axis=0)

    def total(self, x: str, *axes: int, keepdims: int = 1) -> str:
        """The sum over some axes."""
        return self("ReduceSum", x, self.whole(*axes), keepdims=keepdims)

    def as_type(self, x: str, kind: int) -> str:
        """The values as numbers of another type."""
        return self("Cast", x, to=kind)

    def below(self, n: str) -> str:
        """0, 1, .. n - 1, for a scalar n."""
        return self("Range", self.constant(0, np.int64), n, self.constant(1, np.int64))

    def equal(self, rows: str, columns: str, kind: int) -> str:
        """1 where an entry of one list is that of another, else 0: `[n]`, `[m]` -> `[n, m]`."""
        matches = self("Equal", self("Unsqueeze", rows, self.whole(1)), columns)
        return self.as_type(matches, kind)

    def one_hot(self, labels: str, kind: int) -> str:
        """Labels as rows `[s, c]`, with as many classes as the largest label says."""
        most = self("ReduceMax", labels, self.whole(0), keepdims=0)
        return self.equal(labels, self.below(self("Add", most, self.constant(1, np.int64))), kind)

    def unit(self, x: str, dtype: type) -> str:
        """Rows of length one."""
        squares = self.total(self("Mul", x, x), -1)
        return self("Div", x, self("Sqrt", self("Add", squares, self.constant(1e-12, dtype))))

    def graph(self, name: str, inputs: Mapping[str, Any], outputs: Mapping[str, Any]) -> Any:
        """What was collected, as a graph."""
        onnx = package("onnx")
        infos = [
            [onnx.helper.make_tensor_value_info(n, *kind) for n, kind in ends.items()]
            for ends in (inputs, outputs)
        ]
        return onnx.helper.make_graph(self.nodes, name, *infos)


def positive(learner: Learner, name: str) -> float:
    """The exponential of a number of a learner, whether it is learned or not."""
    return float(learner.state_dict()[name].exp())


def prototypes(nodes: Nodes, learner: ProtoNet, support: str, labels: str, query: str) -> str:
    """Logits by the nearest class mean, as `learners.protonet` has them."""
    member = nodes.one_hot(labels, FLOAT)  # [s c]
    counts = nodes("Unsqueeze", nodes.total(member, 0, keepdims=0), nodes.whole(1))  # [c 1]
    means = nodes("Div", nodes("MatMul", nodes.transpose(member), support), counts)
    rows = nodes("Unsqueeze", query, nodes.whole(1))  # [q 1 d]
    if learner.metric == "cosine":
        product = nodes("Mul", nodes.unit(rows, np.float32), nodes.unit(means, np.float32))
        similarity = nodes.total(product, -1, keepdims=0)
    else:
        apart = nodes("Sub", rows, means)
        similarity = nodes("Neg", nodes.total(nodes("Mul", apart, apart), -1, keepdims=0))
    scale = nodes.constant(positive(learner, "log_scale"), np.float32)
    return nodes("Mul", similarity, scale)


def solution(nodes: Nodes, matrix: str, targets: str) -> str:
    """X of A X = B, for a positive definite A `[n, n]` and B `[n, c]`, by elimination."""
    n = nodes.size(matrix, 0)
    places, joined = nodes.below(n), nodes("Concat", matrix, targets, axis=1)
    inside = Nodes(f"{nodes.prefix}solve{len(nodes.nodes)}_")
    k, on, table = (f"{inside.prefix}{name}" for name in ("k", "on", "table"))
    row = inside("Gather", table, k, axis=0)
    row = inside("Div", row, inside("Gather", row, k, axis=0))
    others = inside("Gather", table, k, axis=1)
    others = inside("Sub", others, inside.as_type(inside("Equal", places, k), DOUBLE))
    column = inside("Unsqueeze", others, inside.whole(1))
    line = inside("Unsqueeze", row, inside.whole(0))
    after = inside("Sub", table, inside("Mul", column, line))
    goes_on = inside("Identity", on)
    body = inside.graph(
        "eliminate",
        {k: (INT64, []), on: (BOOL, []), table: (DOUBLE, [None, None])},
        {goes_on: (BOOL, []), after: (DOUBLE, [None, None])},
    )
    begins = nodes.constant(True, np.bool_)
    (solved,) = nodes.several("Loop", [n, begins, joined], 1, body=body)
    first = nodes("Unsqueeze", n, nodes.whole(0))
    return nodes("Slice", solved, first, nodes.whole(LAST), nodes.whole(1))


def ridge(nodes: Nodes, learner: Ridge, support: str, labels: str, query: str) -> str:
    """Logits of ridge regression, as `learners.ridge` has them, by the smaller of its two systems."""
    x = nodes.as_type(support, DOUBLE)
    targets, across = nodes.one_hot(labels, DOUBLE), nodes.transpose(x)
    few = nodes("Less", nodes.size(x, 0), nodes.size(x, 1))
    by_rows, by_columns = (Nodes(f"{nodes.prefix}by_{name}_") for name in ("rows", "columns"))
    of_rows = [by_rows("MatMul", x, across), by_rows("Identity", targets)]
    of_columns = [by_columns("MatMul", across, x), by_columns("MatMul", across, targets)]
    matrix, right = branched(nodes, few, (by_rows, of_rows), (by_columns, of_columns))
    places = nodes.below(nodes.size(matrix, 0))
    penalty = nodes.constant(positive(learner, "log_penalty"))
    shift = nodes("Mul", nodes.equal(places, places, DOUBLE), penalty)
    solved = solution(nodes, nodes("Add", matrix, shift), right)
    dual, primal = (Nodes(f"{nodes.prefix}{name}_") for name in ("dual", "primal"))
    of_dual, of_primal = [dual("MatMul", across, solved)], [primal("Identity", solved)]
    (weights,) = branched(nodes, few, (dual, of_dual), (primal, of_primal))
    logits = nodes("MatMul", nodes.as_type(query, DOUBLE), weights)
    logits = nodes("Mul", logits, nodes.constant(positive(learner, "log_scale")))
    return nodes.as_type(logits, FLOAT)


def branched(
    nodes: Nodes, condition: str, yes: tuple[Nodes, list[str]], no: tuple[Nodes, list[str]]
) -> list[str]:
    """What one of two graphs computes: matrices in double precision."""
    graphs = [
        inside.graph(inside.prefix, {}, {name: (DOUBLE, [None, None]) for name in names})
        for inside, names in (yes, no)
    ]
    branches = {"then_branch": graphs[0], "else_branch": graphs[1]}
    return nodes.several("If", [condition], len(yes[1]), **branches)


def logistic(nodes: Nodes, learner: Logistic, support: str, labels: str, query: str) -> str:
    """Logits of logistic regression on embeddings of length one, as `learners.logistic` has them."""
    x, targets = with_one(nodes, support), nodes.one_hot(labels, DOUBLE)
    across, rows = nodes.transpose(x), nodes.as_type(nodes.size(x, 0), DOUBLE)
    squares = nodes("MatMul", across, x)  # its norm bounds its largest eigenvalue
    norm = nodes("Sqrt", nodes.total(nodes("Mul", squares, squares), 0, 1, keepdims=0))
    half, penalty = nodes.constant(0.5), nodes.constant(learner.penalty)
    curvature = nodes("Add", nodes("Mul", norm, half), penalty)
    width, n_way = nodes.size(x, 1), nodes.size(targets, 1)
    one = nodes.constant(1, np.int64)
    is_weight = nodes("Less", nodes.below(width), nodes("Sub", width, one))  # the intercept is free
    pull = nodes("Mul", nodes.as_type(is_weight, DOUBLE), penalty)
    pull = nodes("Unsqueeze", pull, nodes.whole(1))
    shape = nodes(
        "Concat", *(nodes("Unsqueeze", n, nodes.whole(0)) for n in (width, n_way)), axis=0
    )
    start = nodes("Expand", nodes.constant(0.0), shape)
    body = descent(nodes, x, across, targets, pull, curvature, rows)
    states = [start, start, nodes.constant(1.0)]
    begins, most = nodes.constant(True, np.bool_), nodes.constant(MOST_STEPS, np.int64)
    weights, *_ = nodes.several("Loop", [most, begins, *states], 3, body=body)
    return nodes.as_type(nodes("MatMul", with_one(nodes, query), weights), FLOAT)


def with_one(nodes: Nodes, embedding: str) -> str:
    """Embeddings of length one in double precision, and a column of ones for the intercept."""
    x = nodes.unit(nodes.as_type(embedding, DOUBLE), np.float64)
    squares = nodes.total(nodes("Mul", x, x), 1)
    zeros = nodes("Sub", squares, squares)
    return nodes("Concat", x, nodes("Add", zeros, nodes.constant(1.0)), axis=1)


def descent(
    nodes: Nodes, x: str, across: str, targets: str, pull: str, curvature: str, rows: str
) -> Any:
    """A step of the accelerated gradient of sum_i CE_i + penalty / 2 |W|^2, as the body of a loop."""
    inside = Nodes(f"{nodes.prefix}descend_")
    names = ("k", "on", "weights", "ahead", "pace")
    k, on, weights, ahead, pace = (f"{inside.prefix}{name}" for name in names)
    probs = inside("Softmax", inside("MatMul", x, ahead), axis=1)
    gradient = inside("MatMul", across, inside("Sub", probs, targets))
    gradient = inside("Add", gradient, inside("Mul", pull, ahead))
    moved = inside("Sub", ahead, inside("Div", gradient, curvature))
    step = inside("Sub", moved, weights)
    one = inside.constant(1.0)
    longer = inside("Add", inside("Mul", inside("Mul", pace, pace), inside.constant(4.0)), one)
    faster = inside("Div", inside("Add", inside("Sqrt", longer), one), inside.constant(2.0))
    uphill = inside.total(inside("Mul", gradient, step), 0, 1, keepdims=0)
    keeps = inside.as_type(inside("LessOrEqual", uphill, inside.constant(0.0)), DOUBLE)
    momentum = inside("Mul", keeps, inside("Div", inside("Sub", pace, one), faster))
    beyond = inside("Add", moved, inside("Mul", step, momentum))
    next_pace = inside("Add", one, inside("Mul", keeps, inside("Sub", faster, one)))
    steepest = inside("ReduceMax", inside("Abs", gradient), inside.whole(0, 1), keepdims=0)
    goes_on = inside("Greater", steepest, inside("Mul", rows, inside.constant(TOLERANCE)))
    matrix = (DOUBLE, [None, None])
    return inside.graph(
        "descend",
        {k: (INT64, []), on: (BOOL, []), weights: matrix, ahead: matrix, pace: (DOUBLE, [])},
        {goes_on: (BOOL, []), moved: matrix, beyond: matrix, next_pace: (DOUBLE, [])},
    )


HEADS: Mapping[type[Learner], Callable[..., str]] = {
    ProtoNet: prototypes,
    Ridge: ridge,
    Logistic: logistic,
}
"""The head of each learner that adapts by its support embeddings alone."""
