"""A module in processes of its own: one actor per replica, or per rank of a trained model."""

import multiprocessing
import os
import traceback

_forked = multiprocessing.get_context("fork")


class Actor:
    """A process that holds one module and answers calls; it ends with the driver."""

    def __init__(self, make, environment):
        self._pipe, theirs = _forked.Pipe()
        self._process = _forked.Process(target=_serve, args=(make, environment, theirs, self._pipe))
        self._process.start()
        theirs.close()

    def call(self, method, *args):
        self.ask(method, *args)
        return self.answer()

    def ask(self, method, *args):
        self._pipe.send((method, args))

    def answer(self):
        answer, error = self._pipe.recv()  # EOFError: it died
        if error:
            raise RuntimeError(error)
        return answer

    def end(self):
        """Ask it to leave, and wait."""
        self._pipe.send(None)
        self._process.join()
        return self._process.exitcode


def _serve(make, environment, pipe, drivers_end):
    drivers_end.close()
    os.environ.update(environment)
    module = make()
    try:
        while call := pipe.recv():
            method, args = call
            try:
                pipe.send((getattr(module, method)(*args), None))
            except Exception:
                pipe.send((None, traceback.format_exc()))
    except EOFError:  # the driver died
        return


class DistActor:
    """The driver's handle of all processes of one model."""

    def __init__(self, model, actors):
        self.model, self.name, self.all_actors = model, model.name, actors

    def call(self, method, *args):
        for actor in self.all_actors:  # all at once: ranks wait for each other
            actor.ask(method, *args)
        return [actor.answer() for actor in self.all_actors]
