"""The name that the distribution has: ``from ticket_bench import from_pretrained`` is the same as from ``bench``."""

from bench import OFFERED as OFFERED
from bench import __getattr__ as __getattr__
