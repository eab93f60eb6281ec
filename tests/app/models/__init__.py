"""A model for every trap, by theme."""

from __future__ import annotations

from tests.app.models.computed import Box, Priced
from tests.app.models.constraints import Account, Draft, Slot, Turn
from tests.app.models.files import Document
from tests.app.models.generic import Picture, Remark
from tests.app.models.imported import Choosy, Customer, Purchase
from tests.app.models.inheritance import (
    Amphibian,
    Boat,
    Car,
    Kiosk,
    Pizzeria,
    Place,
    Restaurant,
    Vehicle,
)
from tests.app.models.keys import (
    Country,
    Mirror,
    Parcel,
    Ref,
    Seat,
    Sticker,
    Ticket,
    TicketStub,
    Town,
)
from tests.app.models.managers import Article, Selected
from tests.app.models.misc import Gadget, Quoted
from tests.app.models.other import AuditLine, AuditNote
from tests.app.models.reacting import (
    Echo,
    Family,
    Fleeting,
    Line,
    Order,
    Picky,
    Sibling,
    Slugged,
)
from tests.app.models.relations import (
    Author,
    Book,
    BookRow,
    Club,
    Membership,
    Novel,
    Person,
    Profile,
    Tag,
)
from tests.app.models.sequences import Course, Lesson, Receipt
from tests.app.models.signallog import SignalLog
from tests.app.models.times import Stamped

__all__ = [
    "Account",
    "Amphibian",
    "Article",
    "AuditLine",
    "AuditNote",
    "Author",
    "Boat",
    "Book",
    "BookRow",
    "Box",
    "Car",
    "Choosy",
    "Club",
    "Country",
    "Course",
    "Customer",
    "Document",
    "Draft",
    "Echo",
    "Family",
    "Fleeting",
    "Gadget",
    "Kiosk",
    "Lesson",
    "Line",
    "Membership",
    "Mirror",
    "Novel",
    "Order",
    "Parcel",
    "Person",
    "Picky",
    "Picture",
    "Pizzeria",
    "Place",
    "Priced",
    "Profile",
    "Purchase",
    "Quoted",
    "Receipt",
    "Ref",
    "Remark",
    "Restaurant",
    "Seat",
    "Selected",
    "Sibling",
    "SignalLog",
    "Slot",
    "Slugged",
    "Stamped",
    "Sticker",
    "Tag",
    "Ticket",
    "TicketStub",
    "Town",
    "Turn",
    "Vehicle",
]
