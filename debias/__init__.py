"""Shape-texture debiased training (Li et al., ICLR 2021) and AdvProp (Xie et al., CVPR 2020) as a drop-in.

Import the part you need: `debias.style_transfer`, `debias.pipelines` or `debias.train`; this module imports none.
"""

__version__ = "0.1.0"
