"""TF-slim's names of our tensors, written apart from the map under test."""


def to_slim(name: str) -> str:
    """Our name → TF-slim's, written from s3dg.py and i3d_utils.py, independent of the map under test."""
    if name.startswith("head.conv."):
        return "InceptionV1/Logits/Conv2d_0c_1x1/" + {"weight": "weights", "bias": "biases"}[name.split(".")[-1]]
    *path, half, kind, leaf = name.removeprefix("stages.").split(".")
    scope = "InceptionV1/" + "/".join(path)
    if half == "gate":
        return f"{scope}/self_gating/transformer_W/weights"
    if half == "temporal" and kind == "conv":
        return f"{scope}/temporal/{ {'weight': 'weights', 'bias': 'biases'}[leaf] }"
    if kind == "norm":
        moving = {"bias": "beta", "weight": "gamma", "running_mean": "moving_mean", "running_var": "moving_variance"}
        return f"{scope}/BatchNorm/{moving[leaf]}"
    return f"{scope}/weights"
