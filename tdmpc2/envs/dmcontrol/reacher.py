"""The paper's custom reacher tasks: an arm of three links."""

from __future__ import annotations

from functools import partial
from xml.etree import ElementTree

from dm_control.rl import control
from dm_control.suite import reacher

_BIG_TARGET = 0.05  # radius in meters
_SMALL_TARGET = 0.015

_ARM = """
<body name="arm0" pos="0 0 .01">
  <geom name="arm0" type="capsule" fromto="0 0 0 .09 0 0" size=".01" material="self"/>
  <joint name="shoulder0"/>
  <body name="arm1" pos=".09 0 0">
    <geom name="arm1" type="capsule" fromto="0 0 0 .09 0 0" size=".01" material="self"/>
    <joint name="shoulder1" limited="true" range="-80 80"/>
    <body name="hand" pos=".09 0 0">
      <geom name="hand" type="capsule" fromto="0 0 0 .1 0 0" size=".01" material="self"/>
      <joint name="wrist" limited="true" range="-80 80"/>
      <body name="finger" pos=".09 0 0">
        <camera name="hand" pos="0 0 .2" mode="track"/>
        <geom name="finger" type="sphere" size=".01" material="effector"/>
      </body>
    </body>
  </body>
</body>
"""
_ACTUATOR = """
<actuator>
  <motor name="shoulder0" joint="shoulder0"/>
  <motor name="shoulder1" joint="shoulder1"/>
  <motor name="wrist" joint="wrist"/>
</actuator>
"""


def three_link_xml() -> bytes:
    """Return dm_control's reacher model with its arm and motors replaced by three links."""
    xml, _ = reacher.get_model_and_assets()
    root = ElementTree.fromstring(xml)
    # Unpacking raises an error if the suite's model ever changes its structure.
    (worldbody,) = root.findall("worldbody")
    (arm,) = worldbody.findall("body[@name='arm']")
    (actuator,) = root.findall("actuator")
    worldbody[list(worldbody).index(arm)] = ElementTree.fromstring(_ARM)
    root[list(root).index(actuator)] = ElementTree.fromstring(_ACTUATOR)
    return ElementTree.tostring(root)


def _environment(random: int, *, target_size: float) -> control.Environment:
    _, assets = reacher.get_model_and_assets()
    physics = reacher.Physics.from_xml_string(three_link_xml(), assets)
    return control.Environment(physics, reacher.Reacher(target_size, random=random))


TASKS = {
    "three_easy": partial(_environment, target_size=_BIG_TARGET),
    "three_hard": partial(_environment, target_size=_SMALL_TARGET),
}
