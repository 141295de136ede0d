"""Where tensors live."""

import torch

from stylegan_t.errors import SettingsError


def pick_device(name: str) -> torch.device:
    """The device called ``auto`` (a GPU where there is one), ``cpu`` or ``cuda``.

    Raises:
        SettingsError: ``cuda`` on a machine without one.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    if name == "cuda" and not torch.cuda.is_available():
        raise SettingsError("device cuda: torch sees no GPU here; use cpu or auto")
    return torch.device(name)
