"""One at a time: those who want the model stand in a line, and each can see its place."""

import threading
from collections.abc import Callable, Generator
from contextlib import contextmanager


class Ticket:
    """A place in a line; it is compared by identity."""


class Line:
    """Who came first is served first; who leaves gives its place up."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._tickets: list[Ticket] = []

    def enter(self) -> Ticket:
        """Stand at the end."""
        ticket = Ticket()
        with self._changed:
            self._tickets.append(ticket)
        return ticket

    def before(self, ticket: Ticket) -> int:
        """How many come before it; 0 for the one whose turn it is, and for one that has left."""
        with self._changed:
            return self._tickets.index(ticket) if ticket in self._tickets else 0

    def nudge(self) -> None:
        """Let everyone who waits ask again whether to go on waiting."""
        with self._changed:
            self._changed.notify_all()

    @contextmanager
    def turn(self, ticket: Ticket, given_up: Callable[[], bool]) -> Generator[bool]:
        """Wait until it is the ticket's turn, and hold it while inside; False where it was `given_up` before."""
        with self._changed:
            self._changed.wait_for(lambda: self._tickets[0] is ticket or given_up())
        try:
            yield not given_up()
        finally:
            with self._changed:
                self._tickets.remove(ticket)
                self._changed.notify_all()
