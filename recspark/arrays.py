"""The type of a NumPy array. Shape and dtype are in the docstring, or a suffix of the name (`scores_UI`)."""

from typing import Any, TypeAlias

from numpy.typing import NDArray

Array: TypeAlias = NDArray[Any]
