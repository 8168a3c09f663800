"""The vocabulary of array types that the package's signatures use.

`n` is the number of neurons; `...` stands for leading batch axes; `lanes` is the trailing member axis of the engine.
"""

from typing import TypeAlias

from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray

State: TypeAlias = Float[Array, " n"]
States: TypeAlias = Float[Array, "*batch n"]
Matrix: TypeAlias = Float[Array, "n n"]
Scalar: TypeAlias = Float[Array, ""]
LaneStates: TypeAlias = Float[Array, "n lanes"]
LaneValues: TypeAlias = Float[Array, " lanes"]
LaneFlags: TypeAlias = Bool[Array, " lanes"]
LaneCounts: TypeAlias = Int[Array, " lanes"]
Key: TypeAlias = PRNGKeyArray
