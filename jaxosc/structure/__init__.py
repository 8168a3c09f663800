"""Structure: what a weight matrix W is, with a certificate, and what follows for its network (floor 2).

    print(jo.structure(W))
    jo.structure(many).kind          # (10000,) words, for matrices (10000, n, n)

The modules: `hidden_skewness` (is W = S diag(d)?), `centre` (is the linear network a centre?), `reversal` (which
exchanges and signs of neurons turn time round), `verdict` (the answer, and the function), `sentences` (the answer in
words). All of it runs in float64 with NumPy on the host; the tolerance is that of the dtype in which W came.
"""

from .verdict import KINDS as KINDS, Structure as Structure, structure as structure
