"""A subscriber that prints which cards were used, and which uses were declined. See docs/how-to/subscribe.md.

python examples/subscriber.py --bootstrap 127.0.0.1:9092 --group example
"""

import argparse
import asyncio

from pipeline.contracts.weavr import ManagedCardsAuthorisationEvent, ManagedCardsStateChangeEvent
from pipeline.subscriber import Event, Poison, Retry, Subscriber

arguments = argparse.ArgumentParser(description=__doc__)
arguments.add_argument("--bootstrap", default="127.0.0.1:9092")
arguments.add_argument("--group", default="example")
chosen = arguments.parse_args()

subscriber = Subscriber(chosen.bootstrap, group=chosen.group, topics=["managed-cards"])


@subscriber.on(ManagedCardsAuthorisationEvent)
async def authorised(event: Event[ManagedCardsAuthorisationEvent]) -> None:
    """Write to your database here. A repeat has the same ``event.id``: make it a unique key."""
    if event.data.transaction_amount.minor_units < 0:
        raise Poison("a negative amount")  # dead-lettered at once
    decision = "approved" if event.data.approved else f"declined: {event.data.decline_reason}"
    print(f"{event.subject} {decision}", flush=True)


@subscriber.on(ManagedCardsStateChangeEvent)
async def changed(event: Event[ManagedCardsStateChangeEvent]) -> None:
    """Let temporary errors pass, or raise them: the subscriber retries the event."""
    try:
        await asyncio.sleep(0)
    except ConnectionError as error:
        raise Retry("the card service is unavailable", retry_after=30) from error
    print(f"{event.subject} changed", flush=True)


asyncio.run(subscriber.run())
