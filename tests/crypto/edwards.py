"""The curve of Ed25519 by its addition law, from RFC 8032: slow, affine, and none of our code.

$-x^2 + y^2 = 1 + d x^2 y^2$ modulo $p = 2^{255} - 19$, with $d = -121665 / 121666$.
"""

P = 2**255 - 19
D = -121665 * pow(121666, -1, P) % P
ORDER = 2**252 + 27742317777372353535851937790883648493
IDENTITY = (0, 1)


def add(one, other):
    (x1, y1), (x2, y2) = one, other
    product = D * x1 * x2 * y1 * y2 % P
    x = (x1 * y2 + x2 * y1) * pow(1 + product, -1, P) % P
    return x, (y1 * y2 + x1 * x2) * pow(1 - product, -1, P) % P


def negated(point):
    return -point[0] % P, point[1]


def times(number, point):
    total = IDENTITY
    for bit in bin(number)[2:]:
        total = add(total, total)
        if bit == "1":
            total = add(total, point)
    return total


def decoded(data):
    """The point of 32 bytes, or None if there is none with this y."""
    number = int.from_bytes(data, "little")
    sign, y = number >> 255, number % 2**255
    square = (y * y - 1) * pow(D * y * y + 1, -1, P) % P
    x = pow(square, (P + 3) // 8, P)
    if x * x % P != square:
        x = x * pow(2, (P - 1) // 4, P) % P
    if x * x % P != square:
        return None
    return (-x % P if x % 2 != sign else x), y % P


def encoded(point):
    x, y = point
    return (y | (x & 1) << 255).to_bytes(32, "little")


BASE = decoded((4 * pow(5, -1, P) % P).to_bytes(32, "little"))


def torsion():
    """The eight points whose order divides 8."""
    candidates = (decoded(y.to_bytes(32, "little")) for y in range(2, 1000))
    eighths = (times(ORDER, point) for point in candidates if point)
    eighth = next(point for point in eighths if times(4, point) != IDENTITY)
    return [times(number, eighth) if number else IDENTITY for number in range(8)]
