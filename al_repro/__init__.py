"Batch active learning: strategies, selectors, runs and verdicts. Each name is loaded on first use; `dir` lists them all."
__version__ = "0.1.0"

from importlib import import_module
from ._names import NAMES, PACKAGES

__all__ = [*NAMES, *PACKAGES]

def __getattr__(name):
    "A public name, from wherever it lies."
    if name in PACKAGES: return import_module(f'{__name__}.{name}')
    if name not in NAMES: raise AttributeError(f'module {__name__!r} has no attribute {name!r}', name=name, obj=import_module(__name__))
    module, _, own = NAMES[name].partition(':')
    value = globals()[name] = getattr(import_module(f'{__name__}.{module}'), own or name)
    return value

def __dir__(): return sorted({*globals(), *__all__})
