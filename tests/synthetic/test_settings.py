"""Defaults of a family are said once: its maker, `icq make` and `icq sweep` make the same instance of them."""

import subprocess
import sys
from inspect import signature

import numpy as np
import pytest

from icq_bounds.sweep.families import FAMILIES, DialsFamily, GarnetFamily, RoutingFamily
from icq_bounds.sweep.fields import kinds, meanings
from synthetic.dials import Dials, Shape, dials_instance
from synthetic.random import garnet
from synthetic.routing import Routing, routing


def test_makers_and_families_agree_on_every_default():
    assert DialsFamily().shape() == Shape() and DialsFamily().dials() == Dials()
    assert RoutingFamily().game() == Routing()
    assert {name: p.default for name, p in signature(garnet).parameters.items()} == vars(GarnetFamily())


@pytest.mark.parametrize(
    ("family", "made"), [(DialsFamily(), dials_instance), (GarnetFamily(), garnet), (RoutingFamily(), None)]
)
def test_they_make_the_same_instance(family, made):
    one, other = family.workflow(), made() if made else routing(Routing()).smdp
    for name in ("prob", "next_state", "duration", "reward", "terminal", "observation", "agent", "available"):
        np.testing.assert_array_equal(getattr(one, name), getattr(other, name))


def test_every_setting_has_a_meaning_and_help_loads_no_jax():
    for family in FAMILIES.values():
        assert set(meanings(family)) == set(kinds(family))
    code = "import sys, icq_bounds.commands.make; sys.exit('jax' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
