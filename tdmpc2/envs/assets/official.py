"""URLs and checksums of the official archives (ManiSkill2 0.5.3), and the licenses."""

from __future__ import annotations

_SERVER = "https://storage1.ucsd.edu/datasets/ManiSkill2022-assets"

YCB_URL = f"{_SERVER}/mani_skill2_ycb_v2.zip"
YCB_SHA256 = "b83afbe9c38a780f5625f2c97afad712db49fcb533d4814ac0c827b0514a504b"

# ManiSkill2 publishes no checksums of the faucets, so a fetched set cannot become `official`.
FAUCET_URL = f"{_SERVER}/partnet_mobility/dataset/{{model}}.zip"

LICENSES = {
    "ycb": (
        "ManiSkill2's assets are CC BY-NC 4.0 (its README), "
        "the YCB Object and Model Set among them is CC BY 4.0"
    ),
    "faucet": (
        "ManiSkill2's assets are CC BY-NC 4.0 (its README); "
        "PartNet-Mobility has its own terms (sapien.ucsd.edu)"
    ),
}
