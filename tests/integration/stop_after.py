"""Run qd-train in this process, with SIGUSR1 sent to it by itself after N steps: `stop_after.py N OVERRIDES...`."""

import os
import signal
import sys

from qdml import train, trainer

STEPS = int(sys.argv.pop(1))
original = trainer.Trainer.train_step


def train_step(self: trainer.Trainer):
    loss = original(self)
    # Only one process gets the signal: the others have to hear of it.
    if self.step + 1 == STEPS and self.processes.rank == self.processes.world - 1:
        os.kill(os.getpid(), signal.SIGUSR1)
    return loss


trainer.Trainer.train_step = train_step
train.main()
