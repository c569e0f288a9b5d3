"""Official archives (ManiSkill2 0.5.3): URLs, checksums, names of the faucets, licenses."""

from __future__ import annotations

_SERVER = "https://storage1.ucsd.edu/datasets/ManiSkill2022-assets"

YCB_URL = f"{_SERVER}/mani_skill2_ycb_v2.zip"
YCB_SHA256 = "b83afbe9c38a780f5625f2c97afad712db49fcb533d4814ac0c827b0514a504b"

# ManiSkill2 publishes no checksums of the faucets, so a fetched set cannot become `official`.
FAUCET_URL = f"{_SERVER}/partnet_mobility/dataset/{{model}}.zip"

_FAUCETS = """
5000 5001 5002 5004 5005 5006 5007 5010 5011 5012 5014 5015 5016 5018 5020 5021 5023 5024
5025 5027 5028 5029 5030 5033 5034 5035 5037 5038 5039 5040 5041 5043 5044 5045 5046 5047
5048 5049 5050 5051 5052 5053 5055 5056 5057 5058 5060 5061 5062 5063 5064 5065 5067 5068
5069 5070 5072 5073 5075 5076
"""
FAUCETS = tuple(_FAUCETS.split())
"""Names of the benchmark's 60 faucets. ManiSkill2, which lists them, may be in another Python."""

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
