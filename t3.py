import treadle as torch, numpy as np, time
from treadle.tensor.compile import compile
from treadle.tensor.record import step_done
torch.manual_seed(0)
W1=(torch.randn(128,784)*0.05).requires_grad_(); b1=torch.zeros(128,requires_grad=True)
m=[torch.zeros_like(p) for p in (W1,b1)]
def step(x):
    for p in (W1,b1): p.grad=None
    h=(x@W1.T+b1).relu()
    loss=(h*h).mean()
    loss.backward()
    with torch.no_grad():
        for p,b in zip((W1,b1),m):
            b.mul_(0.9).add_(p.grad)
            p.sub_(b*0.01)
    step_done()
    return loss
X=torch.from_numpy(np.random.default_rng(0).random((64,784)).astype(np.float32))
st=(W1.detach().clone().numpy().copy())
a=[step(X).item() for _ in range(5)]
torch.flush()
with torch.no_grad():
    W1.copy_(torch.from_numpy(st)); b1.zero_(); [b.zero_() for b in m]
c=compile(step)
b=[c(X).item() for _ in range(5)]
print(a,b,c.reasons)
