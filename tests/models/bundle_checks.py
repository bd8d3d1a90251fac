"""The model zoo's checks of one bundle, as a script: BUNDLE LABELED SCHEMA OUTPUT; what each gave, as JSON in OUTPUT.

A process of its own, because ignite cannot be imported where warnings are errors.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from monai.bundle import ConfigWorkflow, ckpt_export, onnx_export, verify_metadata, verify_net_in_out

WORKFLOWS = {
    "train": ("train", ["train"]),
    "inference": ("infer", ["inference"]),
    "evaluate": ("infer", ["inference", "evaluate"]),
}


def main(bundle: Path, labeled: Path, schema: Path, output: Path) -> None:
    """Run every check; an exception is its answer."""
    meta = bundle / "configs" / "metadata.json"
    inference = config(bundle, "inference")
    checks: dict[str, Callable[[], Any]] = {
        "metadata": lambda: verify_metadata(meta_file=str(meta), filepath=str(schema)),
        "net_in_out": lambda: verify_net_in_out(
            "network_def", meta_file=str(meta), config_file=inference, device="cpu", n=2, bundle_root=str(bundle)
        ),
        "exports": lambda: exports(bundle, output),
        **{name: lambda name=name: workflow(bundle, labeled, output, name) for name in WORKFLOWS},
    }
    answers = {}
    for name, check in checks.items():
        try:
            answers[name] = check()
        except Exception as error:
            answers[name] = f"{type(error).__name__}: {error}; {error.__cause__}"
    (output / "answers.json").write_text(json.dumps(answers))


def config(bundle: Path, *names: str) -> list[str]:
    return [str(bundle / "configs" / f"{name}.json") for name in names]


def exports(bundle: Path, output: Path) -> dict[str, float]:
    """Largest difference of TorchScript's and onnxruntime's output from the network's, and what the output spans."""
    import onnxruntime

    content = json.loads((bundle / "configs" / "metadata.json").read_text())["network_data_format"]
    shape = [1, content["inputs"]["image"]["num_channels"], 16, 16, 16]
    shared = {
        "ckpt_file": str(bundle / "models" / "model.pt"),
        "meta_file": str(bundle / "configs" / "metadata.json"),
        "config_file": config(bundle, "inference"),
        "bundle_root": str(bundle),
    }
    ckpt_export("network_def", filepath=str(output / "model.ts"), **shared)
    onnx_export("network_def", filepath=str(output / "model.onnx"), input_shape=shape, **shared)
    made = ConfigWorkflow(config(bundle, "inference"), logging_file=False, bundle_root=str(bundle))
    network = made.parser.get_parsed_content("network_def").eval()
    network.load_state_dict(torch.load(bundle / "models" / "model.pt", weights_only=True))
    image = torch.rand(shape, generator=torch.Generator().manual_seed(1)) * 2
    session = onnxruntime.InferenceSession(output / "model.onnx", providers=["CPUExecutionProvider"])
    with torch.inference_mode():
        expected = network(image)
        scripted = torch.jit.load(output / "model.ts").eval()(image)
    (onnx,) = session.run(None, {session.get_inputs()[0].name: image.numpy()})
    return {
        "torchscript": float((scripted - expected).abs().max()),
        "onnx": float((torch.from_numpy(onnx) - expected).abs().max()),
        "span": float(expected.max() - expected.min()),
    }


def workflow(bundle: Path, labeled: Path, output: Path, name: str) -> dict[str, Any]:
    """Missing properties, and how many epochs were run."""
    kind, files = WORKFLOWS[name]
    changes: dict[str, Any] = {
        "bundle_root": str(bundle),
        "device": "$torch.device('cpu')",
        "patch_size": [16, 16, 16],
        "dataset_dir": str(labeled / "images" if name == "inference" else labeled),
    }
    if kind == "train":
        changes |= {"train#trainer#max_epochs": 2, "ckpt_dir": str(output)}
    else:
        changes["output_dir"] = str(output / name)
    made = ConfigWorkflow(config(bundle, *files), workflow_type=kind, **changes)
    made.initialize()
    missing = made.check_properties()
    made.run()
    made.finalize()
    engine = made.parser.get_parsed_content("train#trainer" if kind == "train" else "evaluator")
    return {"missing": missing, "epochs": engine.state.epoch, "metrics": list(engine.state.metrics)}


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:]))
