"""From a row of a file to an object: ordinary Django, which knows nothing of tasks and carpool."""

from uploads.models import Contact


def create_contact(row: dict[str, str]) -> None:
    contact = Contact(name=row["name"], email=row["email"])
    # Not full_clean(): that would ask for each row whether the address is still free. The database
    # refuses one that is taken, and carpool finds out whose it was.
    contact.clean_fields()
    contact.save()
