"""A computation by one framework, in the Python that has it. Runs alone: python -I - NAME.

Prints one line of JSON: {"version", "cuda" (what it was built with), "cards" (how many it sees),
"results": [{"right", "memory" (bytes that it can use, or used), "said"}], "error"}. The numbers
are whole and small, so that every card, CPU and precision gives the same product.
"""

# mypy: ignore-errors
# The frameworks are another Python's: nothing here is known of them.

import json
import sys

SIDE = 32
ROWS = [[float((7 * i + 3 * j) % 6) for j in range(SIDE)] for i in range(SIDE)]
RIGHT = [
    [sum(ROWS[i][k] * ROWS[k][j] for k in range(SIDE)) for j in range(SIDE)] for i in range(SIDE)
]


def judged(product, memory):
    """One card's answer beside the right one."""
    wrong = sum(product[i][j] != RIGHT[i][j] for i in range(SIDE) for j in range(SIDE))
    said = "" if not wrong else f"{wrong} of {SIDE * SIDE} numbers are wrong"
    return {"right": not wrong, "memory": memory, "said": said}


def pytorch():
    """torch.cuda."""
    import torch

    found = []
    for index in range(torch.cuda.device_count() if torch.cuda.is_available() else 0):
        matrix = torch.tensor(ROWS, dtype=torch.float32, device=f"cuda:{index}")
        product = (matrix @ matrix).cpu().tolist()
        found.append(judged(product, torch.cuda.mem_get_info(index)[1]))
    return torch.__version__, torch.version.cuda, found


def tensorflow():
    """Its peak of memory on the card shows that the product was made there."""
    import tensorflow as tf

    found = []
    for index in range(len(tf.config.list_physical_devices("GPU"))):
        with tf.device(f"/GPU:{index}"):
            matrix = tf.constant(ROWS, dtype=tf.float32)
            product = tf.linalg.matmul(matrix, matrix).numpy().tolist()
        memory = tf.config.experimental.get_memory_info(f"GPU:{index}")["peak"]
        found.append(judged(product, memory))
    built = tf.sysconfig.get_build_info().get("cuda_version")
    return tf.__version__, built, found


def jax():
    """RuntimeError is its word for no GPU."""
    import jax

    found = []
    for device in jax.devices("gpu"):
        matrix = jax.device_put(jax.numpy.array(ROWS, dtype="float32"), device)
        product = (matrix @ matrix).tolist()
        found.append(judged(product, (device.memory_stats() or {}).get("bytes_limit")))
    return jax.__version__, None, found


def cupy():
    """Compiles nothing: the product is cuBLAS's."""
    import cupy

    found = []
    for index in range(cupy.cuda.runtime.getDeviceCount()):
        with cupy.cuda.Device(index):
            matrix = cupy.array(ROWS, dtype=cupy.float32)
            product = (matrix @ matrix).get().tolist()
            found.append(judged(product, cupy.cuda.runtime.memGetInfo()[1]))
    return cupy.__version__, str(cupy.cuda.runtime.runtimeGetVersion()), found


def rapids():
    """cuDF: sums by group, on the first card."""
    import cudf

    keys, values = [i % 5 for i in range(1000)], list(range(1000))
    sums = cudf.Series(values).groupby(cudf.Series(keys)).sum().sort_index().to_pandas().tolist()
    right = [sum(values[key::5]) for key in range(5)]
    said = "" if sums == right else f"the sums are {sums}, not {right}"
    return cudf.__version__, None, [{"right": not said, "memory": None, "said": said}]


def main(name):
    """Run one; whatever it raises is its answer."""
    answer = {"version": None, "cuda": None, "cards": 0, "results": [], "error": None}
    try:
        version, cuda, results = globals()[name]()
        answer.update(version=str(version), cuda=cuda, cards=len(results), results=results)
    except BaseException as error:
        answer["error"] = f"{type(error).__name__}: {error}"
    print("\n" + json.dumps(answer))


if __name__ == "__main__":
    main(sys.argv[1])
