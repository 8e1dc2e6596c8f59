"""Loss landscapes: exact values at many points of weight space, directions, barriers, pictures."""

from __future__ import annotations

from ._hdf5 import read_li2018 as read_li2018
from ._journal import merge as merge
from ._sharing import Share as Share
from .barriers import Barriers as Barriers
from .barriers import Sharpness as Sharpness
from .barriers import barriers as barriers
from .barriers import sharpness as sharpness
from .directions import Directions as Directions
from .directions import from_tensors as from_tensors
from .directions import random_directions as random_directions
from .evaluator import Evaluator as Evaluator
from .planes import between as between
from .planes import pca_directions as pca_directions
from .planes import plane as plane
from .planes import project as project
from .planes import span as span
from .result import Line as Line
from .result import Points as Points
from .result import Surface as Surface
from .result import Volume as Volume
from .result import load as load
from .trajectory import Trajectory as Trajectory
