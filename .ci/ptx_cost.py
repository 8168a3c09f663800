"""What a step of a kernel costs by its PTX: a count of instructions and no measurement.

The compiled kernel is nested loops: strides, the steps of a stride, and in some kernels the columns of a product or the
visits of a splitting within a step. Each backward branch marks one; a step is the largest loop directly inside of the
outermost, and loops inside of it count as often as they turn.
"""

import dataclasses
import re

SPECIAL = ("ex2", "lg2", "rcp", "rsqrt", "sqrt", "sin", "cos", "tanh", "div")
"""Instructions of the special function units, and divisions, which are made of them."""


@dataclasses.dataclass
class Counts:
    """PTX instructions that one thread issues in one step."""

    loads: float = 0
    fmas: float = 0
    products_and_sums: float = 0
    special: float = 0
    others: float = 0

    def add(self, instruction: str, times: float) -> None:
        """Count an instruction such as `fma.rn.f32`."""
        name, *kinds = instruction.split(".")
        of_floats = any(kind in ("f32", "f64") for kind in kinds)
        if name == "ld" and "global" in kinds:
            self.loads += times
        elif name == "fma" and of_floats:
            self.fmas += times
        elif name in ("mul", "add", "sub") and of_floats:
            self.products_and_sums += times
        elif name in SPECIAL:
            self.special += times
        else:
            self.others += times

    @property
    def total(self) -> float:
        """All of them."""
        return self.loads + self.fmas + self.products_and_sums + self.special + self.others


def step_counts(ptx: str, inner_turns: int) -> Counts:
    """The instructions of one step; `inner_turns`, how often a loop inside of the step turns."""
    lines = ptx.splitlines()
    loops = _loops(lines)
    outermost = max(loops, key=_length)
    inside = [loop for loop in loops if loop != outermost and _contains(outermost, loop)]
    step = max(inside, key=_length)
    inner = [loop for loop in inside if loop != step and _contains(step, loop)]
    counts = Counts()
    for number in range(step[0], step[1] + 1):
        times = inner_turns if any(begin <= number <= end for begin, end in inner) else 1
        for instruction in _instructions(lines[number]):
            counts.add(instruction, times)
    return counts


def _loops(lines: list[str]) -> list[tuple[int, int]]:
    """First and last line of every loop: from a label to the last branch back to it."""
    labels = {match[1]: k for k, line in enumerate(lines) if (match := re.match(r"(\$L\w+):", line))}
    last: dict[int, int] = {}
    for k, line in enumerate(lines):
        match = re.search(r"\bbra(?:\.uni)?\s+(\$L\w+)", line)
        if match and labels[match[1]] < k:
            last[labels[match[1]]] = k
    return list(last.items())


def _instructions(line: str) -> list[str]:
    """The instructions of a line; inline assembly has several, and some have a predicate."""
    found = []
    for part in line.split("//")[0].split(";"):
        match = re.match(r"\s*[{]?\s*(?:@!?%\w+\s+)?([a-z]\w*(?:\.\w+)+)", part)
        if match and not match[1].startswith("."):
            found.append(match[1])
    return found


def _length(loop: tuple[int, int]) -> int:
    return loop[1] - loop[0]


def _contains(outer: tuple[int, int], inner: tuple[int, int]) -> bool:
    return outer[0] <= inner[0] and inner[1] <= outer[1]
