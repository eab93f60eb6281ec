"""Print a CSV file of contacts to try: `python sample.py 10000 > contacts.csv`.

In each hundred rows one has an address that is none, and one an address that is taken.
"""

import sys


def rows(number: int) -> list[str]:
    lines = ["name,email"]
    for n in range(number):
        address = {7: "nobody", 8: f"Contact{n - 5}@example.com"}.get(n % 100)
        lines.append(f"Contact {n},{address or f'contact{n}@example.com'}")
    return lines


if __name__ == "__main__":
    print("\n".join(rows(int(sys.argv[1]))))
