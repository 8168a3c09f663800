"""The report: one HTML page from a sweep's dataset, self-contained, for people who did not run it (floor 8).

    jo.report.write("results")                     # results/report.html
    jo.report.write(dataset, out="report.html")

A page is a list of blocks, see `page.BLOCKS` and `block.Block`; a block that cannot be made says why in a
sentence.
"""

from .block import Block as Block
from .page import BLOCKS as BLOCKS, write as write
