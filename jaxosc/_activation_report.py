"""The report of `check_activation`: the measured facts, and what they mean for a network with skew W."""

import dataclasses


@dataclasses.dataclass(frozen=True, repr=False)
class ActivationReport:
    """What `check_activation` measured of a function f; print it for a table and the verdict.

    Errors are judged against the size of f: the largest |f| up to that |y|, and at least up to |y| = 1. What is shown
    of each is the place nearest to 0 where it is at least half as bad as anywhere.

    **Attributes:**

    - `name`, `dtype`: the function; the arithmetic that measured it.
    - `value_at_zero`: f(0).
    - `odd`, `oddness_error`, `oddness_at`: whether f(-y) = -f(y); |f(y) + f(-y)| at that y >= 0.
    - `bounded`, `largest`, `growth`: the largest |f| up to |y| = 1e8, and p when it grows like |y|^p from 1e4 on (0
      when bounded, infinite on overflow).
    - `continuous`, `jump`, `jump_at`: height and place of a jump (0 and NaN when none was found).
    - `monotone`, `worst_increment`, `decrease_at`: whether f never falls; its negative change from one sample to the
      next, and where (0 and NaN when there is none; rounding errors are shown, but do not count).
    - `level_sets_bounded`: whether Phi tends to infinity on both sides (or to minus infinity on both).
    - `barrier`: an orbit that starts with H below it stays bounded: infinite with bounded level sets, otherwise the
      height to which Phi rises on both sides (2 for sin), 0 when that says nothing.
    - `tail_vanishes`: whether f tends to 0 on a side where Phi stops growing.
    """

    name: str
    dtype: str
    value_at_zero: float
    odd: bool
    oddness_error: float
    oddness_at: float
    bounded: bool
    largest: float
    growth: float
    continuous: bool
    jump: float
    jump_at: float
    monotone: bool
    worst_increment: float
    decrease_at: float
    level_sets_bounded: bool
    barrier: float
    tail_vanishes: bool

    @property
    def verdict(self) -> str:
        """One sentence: what breaks in a network with skew W, or that nothing does."""
        return f"{self._nature()}; so {self._consequence()}."

    def _nature(self) -> str:
        flaws = []
        if not self.continuous:
            flaws.append(f"not continuous: f jumps by {self.jump:.3g} at y = {self.jump_at:.4g}")
        if not self.odd:
            flaws.append(f"not odd: |f(y) + f(-y)| = {self.oddness_error:.3g} at y = {self.oddness_at:.4g}")
        if not self.monotone:
            flaws.append(f"not increasing: f falls at y = {self.decrease_at:.4g}")
        return ", ".join(flaws) or f"odd, continuous, increasing and {'bounded' if self.bounded else 'unbounded'}"

    def _consequence(self) -> str:
        if self.largest == 0:
            return "nothing moves, since f is 0 everywhere"
        if not self.level_sets_bounded:
            return self._escape()
        kept = "for skew W the energy H is conserved and its level sets are bounded, hence every orbit stays bounded"
        if not self.continuous:
            return f"{kept}, but at the jump solvers fall to order 1"
        if not self.monotone:
            return f"{kept}, but H is not convex: there can be more points of rest, and forward Euler can lose energy"
        if not self.odd:
            return f"{kept} (oddness is not needed for that), but closed forms for odd f do not apply"
        unbounded = "exponentially or faster" if self.growth > 0.99 else "faster than sqrt(t)"
        gain = "like sqrt(t)" if self.bounded else unbounded
        return f"{kept}, and forward Euler gains energy {gain}"

    def _escape(self) -> str:
        if self.barrier > 0:
            return (
                f"for skew W orbits that start with H < {self.barrier:.4g} stay bounded and those above can escape"
                " though H is conserved, because its level sets are unbounded there"
            )
        escape = "escape at constant speed" if self.tail_vanishes else "can escape"
        return (
            f"for n = 2 orbits {escape} though H is conserved, because its level sets are unbounded, and for n >= 3"
            " they are bounded only if something else holds them, such as a c with all c_i > 0 and W c = 0"
        )

    def __str__(self) -> str:
        def line(fact: str, holds: bool, detail: str) -> str:
            return f"  {fact:<20}{'yes' if holds else 'no':<5}{detail}"

        jump = "no jump found" if self.continuous else f"jump of {self.jump:.3g} at y = {self.jump_at:.6g}"
        fall = (
            "no fall found" if self.monotone else f"falls by {-self.worst_increment:.3g} at y = {self.decrease_at:.6g}"
        )
        height = f", but rises to {self.barrier:.4g} on both" if self.barrier > 0 else ""
        sides = "Phi grows on both sides" if self.level_sets_bounded else f"Phi does not grow on both sides{height}"
        growth = "" if self.bounded else f", growing like |y|^{self.growth:.3g}"
        return "\n".join(
            [
                f"{self.name}, measured in {self.dtype}: f(0) = {self.value_at_zero:.6g}",
                line("odd", self.odd, f"|f(y) + f(-y)| = {self.oddness_error:.3g} at y = {self.oddness_at:.4g}"),
                line("bounded", self.bounded, f"|f| up to {self.largest:.6g}{growth}"),
                line("continuous", self.continuous, jump),
                line("increasing", self.monotone, fall),
                line("level sets bounded", self.level_sets_bounded, sides),
                f"  {self.verdict}",
            ]
        )

    def __repr__(self) -> str:
        return str(self)
