"""Script: run Shake-Shake and a whole network on the current Keras backend; print JSON."""

import json

import keras
import numpy as np
from keras import ops

import zoo
from rfkeras.layers import ShakeShake

RNG = np.random.default_rng(0)
X1, X2 = (RNG.normal(size=(64, 3, 4, 2)).astype("float32") for _ in range(2))
LAYER = ShakeShake(seed=3)


def output_and_gradients():
    if keras.backend.backend() == "torch":
        import torch

        inputs = [torch.tensor(x, requires_grad=True) for x in (X1, X2)]
        out = LAYER(inputs, training=True)
        out.sum().backward()
        return out.detach().numpy(), *(x.grad.numpy() for x in inputs)
    import jax

    state = [v.value for v in LAYER.non_trainable_variables]

    def call(first, second):
        return LAYER.stateless_call([], state, [first, second], training=True)[0]

    gradients = jax.jit(jax.grad(lambda *x: call(*x).sum(), argnums=(0, 1)))(X1, X2)
    return np.asarray(call(X1, X2)), *(np.asarray(g) for g in gradients)


def fit_losses():
    model = zoo.create_model(
        "resnet_rf_shake_fa",
        5,
        width=8,
        damping=0.01,
        decomposition=2,
        rho=(7, 3),
        frontend=None,
        initialization="he",
    )
    model.compile(keras.optimizers.Adam(0.05), "mse")
    x = RNG.normal(size=(4, 120, 96, 1)).astype("float32")
    return model.fit(x, np.full((4, 5), 3.0, "float32"), epochs=8, verbose=0).history["loss"]


LAYER.build([X1.shape, X2.shape])
out, beta, rest = output_and_gradients()
difference = X1 - X2
alpha = ((out - X2) * difference).sum((1, 2, 3)) / (difference**2).sum((1, 2, 3))
inference = ops.convert_to_numpy(LAYER([ops.convert_to_tensor(x) for x in (X1, X2)]))
print(
    json.dumps(
        {
            "backend": keras.backend.backend(),
            "alpha": [float(a) for a in alpha],
            "beta": [float(b) for b in beta[:, 0, 0, 0]],
            "beta_spread_in_a_sample": float(np.ptp(beta, axis=(1, 2, 3)).max()),
            "sum_of_shares": float(np.abs(beta + rest - 1).max()),
            "inference_error": float(np.abs(inference - (X1 + X2) / 2).max()),
            "losses": fit_losses(),
        }
    )
)
