from sftmix_jax.api import Sampler as Sampler
from sftmix_jax.api import evaluate as evaluate
from sftmix_jax.api import load as load
from sftmix_jax.api import results as results
from sftmix_jax.api import train as train

__version__: str
