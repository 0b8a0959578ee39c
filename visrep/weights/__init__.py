"""The encoder file, and everything that becomes one or is made of one.

`from visrep.weights import load_encoder` goes on working: its names are those of `visrep`.
"""

from visrep import __getattr__ as __getattr__
