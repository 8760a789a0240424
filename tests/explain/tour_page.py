"""What the tests of the page share."""

import base64
import json
import re
import time

import numpy as np

from npgemma.backward.answers import batch_of, gradients
from npgemma.params import leaves

TYPES = {"Float32Array": "f4", "Float64Array": "f8", "Int32Array": "i4", "Uint8Array": "u1"}


def unpacked(pack, found):
    """The array that a `Pack` holds at a place."""
    shape = found["shape"]
    block = base64.b64decode(pack.text())
    return np.frombuffer(block, TYPES[found["type"]], int(np.prod(shape)), found["offset"]).reshape(shape)


def gradients_of(model, image_BYXC, prompt, ids, token):
    """The loss of one token of an answer, and lengths of its gradients: by patch, and by name of the weight."""
    batch = batch_of(model, image_BYXC, [prompt], [ids])
    batch.answer_BT[:] = np.arange(batch.ids_BT.size) == len(model.tokenizer.prompt(prompt)) + token
    loss, dpixels, dp = gradients(batch, model.params, model.config)
    patches = dpixels.reshape(dpixels.shape[1] // (size := model.config.vision.patch_size), size, -1, size, 3)
    return loss, np.sqrt((patches**2).sum((1, 3, 4))).ravel(), {n: np.sqrt((dw**2).sum()) for n, _, dw in leaves(dp)}


def facts_of(path):
    """What a page is told."""
    return json.loads(re.search(r'id="facts">(.*?)</script>', path.read_text(encoding="utf-8"), re.DOTALL)[1])


def opened(driver, path, width=1280, scheme="light", height=900):
    """Open a page and wait until it is drawn."""
    metrics = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 600}
    driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
    features = [{"name": "prefers-color-scheme", "value": scheme}]
    driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})
    for kind in ("browser", "performance"):
        driver.get_log(kind)
    driver.get(path.as_uri())
    end = time.monotonic() + 60
    while not driver.execute_script("return window.tour?.ready === true"):
        assert time.monotonic() < end, driver.get_log("browser")
        time.sleep(0.05)
    return driver
