"""What each built-in method makes from a fixed model and text, by method version.

Stored are rounded statistics of the delta: the norm of the change and its projection on a fixed direction, which move
with the mathematics and not with the last bits. To renew: `python tests/methods/test_golden.py`.
"""

from __future__ import annotations

import numpy as np
import pytest
import torch
from unlearn_bench.methods.base import methods
from unlearn_bench.methods.testing import tiny_model, tiny_trainer

GOLDEN: dict[tuple[str, int], dict[str, float]] = {
    ("adap_rmu", 1): {"tensors": 3, "norm": 0.08051, "projection": 0.00868, "total": 62.41909},
    ("alt_po", 1): {"tensors": 83, "norm": 0.4823, "projection": -0.15823, "total": 20.4591},
    ("blur", 2): {"tensors": 83, "norm": 0.48473, "projection": -0.21048, "total": 19.36927},
    ("catnip", 1): {"tensors": 83, "norm": 0.46109, "projection": -0.43456, "total": 0.01919},
    ("ceu", 1): {"tensors": 83, "norm": 0.45397, "projection": -0.44247, "total": 4.18786},
    ("circuit_breakers", 1): {"tensors": 42, "norm": 0.13194, "projection": -0.05974, "total": 5.87212},
    ("cosine_meta_rmu", 1): {"tensors": 3, "norm": 0.16739, "projection": 0.03061, "total": 1.13007},
    ("grad_ascent", 1): {"tensors": 83, "norm": 0.47414, "projection": -0.22602, "total": -4.65421},
    ("grad_diff", 1): {"tensors": 83, "norm": 0.48716, "projection": -0.58307, "total": -0.38405},
    ("idk", 1): {"tensors": 83, "norm": 0.50398, "projection": -0.73824, "total": 4.37812},
    ("idk_dpo", 1): {"tensors": 83, "norm": 0.47399, "projection": -0.38234, "total": 19.57901},
    ("ihl", 1): {"tensors": 63, "norm": 1.14056, "projection": -0.86136, "total": 5.2823},
    ("kto", 1): {"tensors": 83, "norm": 0.49066, "projection": -0.16953, "total": -1.25709},
    ("meow", 1): {"tensors": 83, "norm": 0.50161, "projection": 0.0431, "total": 4.68659},
    ("multi_layer_probe", 2): {"tensors": 9, "norm": 0.24938, "projection": 0.2785, "total": 12.41911},
    ("npo", 2): {"tensors": 83, "norm": 0.48482, "projection": -0.21042, "total": 19.3764},
    ("pdu", 1): {"tensors": 83, "norm": 0.50072, "projection": -0.62524, "total": 588.44983},
    ("rmu", 1): {"tensors": 3, "norm": 0.06482, "projection": 0.00502, "total": 5.6441},
    ("satimp", 1): {"tensors": 83, "norm": 0.50063, "projection": -0.63431, "total": 43.88535},
    ("simnpo", 1): {"tensors": 83, "norm": 0.49035, "projection": -0.56925, "total": 14.0631},
    ("task_vector", 1): {"tensors": 83, "norm": 0.47294, "projection": -0.43956, "total": 4.83295},
    ("tnpo", 1): {"tensors": 83, "norm": 0.50024, "projection": -0.64432, "total": 4.327},
    ("uld", 1): {"tensors": 56, "norm": 0.66998, "projection": 0.64398, "total": 6.07651},
    ("undial", 1): {"tensors": 83, "norm": 0.34449, "projection": 0.26108, "total": 4.22882},
    ("wga", 1): {"tensors": 83, "norm": 0.5004, "projection": -0.6435, "total": 4.34277},
    ("whp", 1): {"tensors": 83, "norm": 0.47294, "projection": 0.43956, "total": 4.83295},
    ("wtnpo", 1): {"tensors": 83, "norm": 0.5006, "projection": -0.63917, "total": 4.38831},
}

BUILT_IN = [name for name in methods.names() if methods.origin(name).startswith("unlearn_bench.methods.")]


def statistics(name):
    torch.set_num_threads(1)
    trainer = tiny_trainer(name, steps=6)
    trainer.run()
    base = dict(tiny_model().named_parameters())
    change = np.concatenate([(new - base[key].detach()).double().flatten() for key, new in trainer.delta().items()])
    direction, row = np.cos(np.arange(len(change))), trainer.log[-1]
    return {
        "tensors": len(trainer.delta()),
        "norm": float(np.linalg.norm(change)),
        "projection": float(change @ direction),
        "total": row["total"] if "total" in row else row["forget"] + row["retain"],
    }


@pytest.mark.parametrize("name", BUILT_IN)
def test_result_is_that_of_the_methods_version(name):
    version = methods.get(name).version
    found = statistics(name)
    assert (name, version) in GOLDEN, f"no golden result of {name} version {version}: add {found}"
    assert found == pytest.approx(GOLDEN[name, version], rel=2e-3, abs=2e-4), (
        f"{name} makes something else than its version {version} did. If that is meant, raise `version` in"
        f" {methods.origin(name)} (old results then count as another method's) and add the new numbers here."
    )


if __name__ == "__main__":
    for known in BUILT_IN:
        rounded = {key: round(value, 5) for key, value in statistics(known).items()}
        print(f"    ({known!r}, {methods.get(known).version}): {rounded},")
