"""The small world of the toy domains: people, things and words."""

PEOPLE = (
    "Ana Ben Cara Dan Eva Finn Gina Hugo Iris Jon Kim Leo Mia Ned Olga Paul Rita Sam Tina Vera Will Yara Zoe Adam "
    "Bella Carl Dora Emil Fay Greg Hana Ivan June Kurt Lena Max Nora Otto Pia Ravi"
).split()

THINGS = (
    "apples books coins cards shells stamps pens eggs plums nuts stones keys cups rings seeds toys bricks boxes "
    "flowers buttons marbles pears balls candles ribbons spoons tickets beads cookies lemons"
).split()

WORDS = (
    "apple bird boat bone book bread bridge brook brush cake candle castle chair clock cloud coat corn crown desk "
    "door dream drum eagle earth fire fish flag flower forest fox frog garden gate glass gold grape grass green "
    "hammer hand heart hill honey horse house ice iron island jar jewel key king kite ladder lake lamp leaf lemon "
    "light lion map milk mirror moon mouse music nest night ocean olive onion orange owl paper pearl pencil piano "
    "plant plate pond queen rain ring river road rope rose sand school sea seed shell ship shoe silver sky snow "
    "song spoon star stone storm street sugar summer sun table tent tiger tower train tree valley violin wall water "
    "wave wheel wind window winter wolf wood yellow zebra"
).split()

COLOURS = ("red blue green black white brown pink grey").split()

NAMES = ("f solve process compute run apply convert transform work go step build calc change").split()
