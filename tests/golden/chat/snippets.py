"""Small templates, each for one construct or edge of the language. make_goldens.py renders them over INPUT."""

INPUT = {
    "messages": [{"role": "user", "content": "Hi <b>&</b> \"q\" 'x' ü😀"},
                 {"role": "assistant", "content": "Yes\nno", "tool_calls": [{"name": "f", "arguments": {"a": 1, "b": [1.5, None, True]}}]},
                 {"role": "user", "content": "  bye  "}],
    "tools": [{"type": "function", "function": {"name": "add", "description": "d", "parameters": {"z": 1, "a": 2}}}],
    "kwargs": {
        "n": 5, "neg": -7, "f": 2.5, "big": 12345678901, "t": True, "no": None, "s": "Hello World", "u": "äÖß Straße ЖЗ",
        "sp": " \t\n x y \u3000", "empty": "", "xs": [3, 1, 2], "ws": ["b", "A", "c", "B"], "nested": [[1, 2], [3, [4, 5]]],
        "d": {"one": 1, "two": 2, "items": "mine", "keys": "k"}, "users": [
            {"name": "Bob", "age": 30, "in": {"x": 1}}, {"name": "al", "age": 25, "in": {"x": 2}},
            {"name": "Cy", "age": 30}], "lines": "a\nb\r\n\nc\n", "ctl": "\u0000\u0001\u007f\t\\".replace("\u0000", "")},
    "bos_token": "<s>", "eos_token": "</s>", "add_generation_prompt": True,
}


def block(text):
    return [line for line in text.strip("\n").split("\n") if line.strip()]


# One expression a line, printed.
EXPRESSIONS = block(r"""
1 + 2 * 3
(1 + 2) * 3
7 // 2
-7 // 2
7 % 3
-7 % 3
7 % -3
7.5 // 2
-7.5 % 2
7 / 2
6 / 2
2 ** 10
2 ** -1
2 ** 3 ** 2
-2 ** 2
2.0 ** 0.5
1 / 3
0.1 + 0.2
1e100
1e16
1e15
123456789012345680.0
0.0001
0.00001
1.5e-7
-0.0
100.0
1_000 + 0x1f + 0b101 + 0o17
1 / 0
1 % 0
5 // 0
n + f
t + 1
true + true
n ~ f ~ s ~ no ~ t
"a" ~ 1 + 2
1 ~ 2 * 3
"a" "b" 'c'
"a" * 3
3 * "ab"
[1] * 3
[1, 2] + [3]
(1, 2) + (3,)
[1] + (2,)
"a" + 1
1 + "a"
no + 1
missing
missing + 1
missing.x
missing[0]
missing ~ "x"
missing()
-missing
not missing
missing == missing
missing == none
missing is defined
missing < 1
"x" in missing
missing in [1]
d.missing
d.missing.more
d["missing"]
d.one
d["two"]
d["items"]
d.keys()
d.items()
d.values()
d.items() | list
d.get("one")
d.get("x")
d.get("x", 7)
d.get(key="one")
d.copy()
d.pop("one")
d.update({"x": 1})
d.setdefault("a", 1)
d.clear is defined
d.clear
d.__class__
s.__class__
xs.append(4)
xs.append is defined
xs.append
xs.sort()
xs.pop()
xs.index(2)
xs.index(9)
xs.count(1)
xs.copy()
xs[0]
xs[-1]
xs[3]
xs[-4]
xs["0"]
xs.0
xs[true]
xs[1:]
xs[:1]
xs[::-1]
xs[::2]
xs[-2:]
xs[5:]
xs[:-5]
xs[2:0:-1]
xs[1:2:1]
xs[::0]
xs["a":]
s[0]
s[-1]
s[20]
s[::-1]
s[2:5]
s[-3:]
s[::3]
u[1]
u[::-1]
u[1:6]
u[-2:]
(1, 2, 3)[1:]
range(10)[2:5] | list
range(10)[3]
range(3)
range(1, 10, 3)
range(5, 0, -2) | list
range(0)
range(3) | length
range(100001)
range(1, 2, 0)
range("a")
range(2.0)
1, 2
(1,)
()
[]
{}
[1, "a", 2.0, none, true, [], {}, ()]
{"a": 1, 2: "b", none: 3, true: 4, 1.5: 5}
{1: "a", true: "b", 1.0: "c"}
{[1]: 2}
{(1, 2): 3}[(1, 2)]
{"a": 1}.a
"it's"
'say "x"'
["it's", 'say "x"', "both ' and \""]
["tab\tnl\nback\\", "é", "\x01", "\u200b", "😀"]
"\x41\u0042\101\n|\q|\
x"
"\N"
true and 1
0 or "x"
0 and x.y
1 or x.y
"" or [] or none
not 0
not "a" or true
1 < 2 < 3
1 < 3 < 2
3 > 2 > 1 == 1
1 == 1.0
1 == true
"1" == 1
"a" < "b"
"a" < 1
[1, 2] < [1, 3]
[1, 2] == [1, 2]
(1,) == [1]
{"a": [1]} == {"a": [1]}
1 != 2
none == none
none < 1
"ell" in s
"z" not in s
"" in s
1 in xs
9 in xs
not 1 in xs
"one" in d
1 in d.values()
1 in 5
1 in s
none in [none]
3 in range(5)
"yes" if t else "no"
"yes" if no
"a" if no else "b" if t else "c"
n is number
n is integer
f is float
f is integer
t is integer
t is number
t is boolean
t is true
no is false
no is none
s is string
s is not string
s is sequence
xs is sequence
d is mapping
d is iterable
n is iterable
missing is iterable
range(3) is sequence
d.items() is mapping
n is odd
neg is odd
4 is even
s is odd
9 is divisibleby 3
9 is divisibleby(2)
n is eq 5
n is equalto(5)
n is ne 5
n is gt 4 and n is lt 6
n is ge 5
n is le 4
n is sameas n
xs is sameas xs
[1] is sameas [1]
none is sameas none
2 is in xs
"A" is upper
"a1" is lower
"" is upper
"1" is lower
range is callable
n is callable
"upper" is filter
"nope" is filter
"odd" is test
n is nosuchtest
n | nosuchfilter
n is defined is true
s is string and s is defined
n is in [5] and t
s | length
u | length
d | length
xs | count
n | length
missing | length
none | length
s | upper
s | lower
u | upper
u | lower
u | title
u | capitalize
"hello wORLD foo-bar (x) it's" | title
"hello wORLD" | capitalize
n | upper
none | upper
sp | trim
"xxhixx" | trim("x")
n | trim
missing | trim
sp.strip()
sp.lstrip() ~ "|"
"|" ~ sp.rstrip()
"xyhixy".strip("xy")
"xyhixy".lstrip("x")
"xyhixy".rstrip("yx")
"üxü".strip("ü")
s | replace("l", "L")
s | replace("l", "L", 1)
s | replace("", "-")
"" | replace("", "-")
s.replace("o", "0", 1)
s.replace("", ".")
123 | replace(2, 4)
s.replace(1, 2)
"a,b,,c".split(",")
"a,b,,c".split(",", 1)
" a  b ".split()
" a  b c ".split(none, 1)
"".split()
"".split(",")
"abc".split("")
"a--b--c".rsplit("--", 1)
" a b  c ".rsplit(none, 1)
" a b  c ".rsplit()
"a,b".split(sep=",", maxsplit=1)
"abc".split(1)
lines.splitlines()
lines.splitlines(true)
"a=b=c".partition("=")
"a=b=c".rpartition("=")
"abc".partition("x")
"abc".rpartition("x")
s.startswith("Hell")
s.startswith(("x", "He"))
s.startswith("World", 6)
s.endswith("ld")
s.endswith("x")
s.endswith(1)
s.find("o")
s.find("o", 5)
s.find("zz")
u.find("S")
s.rfind("o")
s.index("W")
s.index("zz")
s.rindex("l")
s.count("l")
s.count("")
s.count("l", 3)
s.upper().lower().title().capitalize().swapcase()
"ǅ Éa1b".swapcase()
"they're bill's".title()
"x".center(6, "*") ~ "abc".center(6) ~ "|"
"x".ljust(3) ~ "|" ~ "x".rjust(3, "0")
"-42".zfill(6)
"prefix_x".removeprefix("prefix_").removesuffix("x")
"123".isdigit()
"12a".isdigit()
"abc".isalpha()
"ab1".isalnum()
"  ".isspace()
"".isspace()
"ABC".isupper()
"abC".islower()
",".join(["a", "b"])
",".join("abc")
",".join([1])
"{} and {}".format(1, "x")
"{0} {1} {0}".format("a", "b")
"{a} {b!r}".format(a=1, b="q")
"{:>5}|{:<5}|{:^5}|{:*^7}".format("a", "b", "c", "d")
"{:05d} {:+d} {:,} {:x} {:#x} {:b}".format(42, 42, 1234567, 255, 255, 5)
"{:.2f} {:8.3f} {:e} {:g} {:%} {}".format(3.14159, 2.5, 12345.678, 0.0001, 0.25, 1.0)
"{{}} {}".format(1)
"{".format(1)
"{} {}".format(1)
"{0} {}".format(1, 2)
"{x}".format(y=1)
"{0.one} {0[two]} {1[0]}".format(d, xs)
"{:d}".format("x")
"{:{}}|".format("a", 4)
"%s %d %5.2f %r %%" % ("a", 3, 2.5, "q")
"%05d|%-5d|%+d|%x|%X|%o" % (42, 42, 42, 255, 255, 8)
"%(a)s-%(b)d" % {"a": 1, "b": 2}
"%s" % "x"
"%s" % [1, 2]
"%s %s" % ("a",)
"%s" % ("a", "b")
"%d" % "x"
"%s" % none
"%5s|%-5s|%.2s" % ("ab", "ab", "abcdef")
"%c%c" % ("x", 65)
"%d" % 3.9
"%i %e %g" % (3, 1234.5, 0.00001)
"no args" % ()
"%q" % 1
"%s and %s" | format("a", 1)
"%(x)s" | format(x=4)
xs | join
xs | join(", ")
users | join(", ", attribute="name")
users | map(attribute="name") | join("|")
users | map(attribute="in.x") | list
users | map(attribute="in") | list
users | map(attribute="zip", default="?") | list
ws | map("upper") | list
ws | map("replace", "A", "Z") | list
ws | map("nosuch") | list
xs | map("string") | length
xs | select("odd") | list
xs | select | list
[0, 1, "", "a", none] | select | list
[0, 1, "", "a", none] | reject | list
xs | reject("gt", 1) | list
xs | select("nosuch") | list
users | selectattr("age", "equalto", 30) | map(attribute="name") | list
users | selectattr("in") | list | length
users | selectattr("in", "defined") | list | length
users | rejectattr("age", "gt", 26) | map(attribute="name") | join
users | selectattr("age", "in", [25]) | first
xs | select("odd") | length
xs | select("odd") | first
xs | first
xs | last
[] | first
[] | last
"abc" | first
"abc" | last
d | first
n | first
xs | sort
xs | sort(reverse=true)
ws | sort
ws | sort(case_sensitive=true)
users | sort(attribute="age") | map(attribute="name") | list
users | sort(attribute="age,name") | map(attribute="name") | list
users | sort(true, attribute="name") | map(attribute="name") | list
[1, "a"] | sort
"hello" | sort
d | sort
ws | unique | list
[1, 2, 1, 1.0, true] | unique | list
users | unique(attribute="age") | map(attribute="name") | list
xs | reverse | list
"abc" | reverse
n | reverse
xs | min
ws | max
[] | min
users | max(attribute="age")
xs | sum
users | sum(attribute="age")
[1.5, 2] | sum(start=10)
["a"] | sum
xs | list
"abc" | list
d | list
n | list
missing | list
d | items | list
missing | items | list
{"b": 1, "A": 2, "c": 0} | dictsort
{"b": 1, "A": 2} | dictsort(true)
{"b": 1, "A": 2, "c": 0} | dictsort(by="value")
{"b": 1, "A": 2} | dictsort(reverse=true)
xs | dictsort
range(7) | batch(3) | list
range(7) | batch(3, "-") | list
range(7) | slice(3) | list
range(7) | slice(3, "x") | list
users | groupby("age") | map("first") | list
users | groupby("age") | length
missing | default("x")
missing | default
"" | default("x")
"" | default("x", true)
none | default("x")
none | d("x", true)
0 | default("x", boolean=true)
"42" | int
" 42 " | int
"4.7" | int
"x" | int
"x" | int(7)
"0x1f" | int(base=16)
"1_000" | int
3.99 | int
none | int
missing | int
[] | int
true | int
"2.5" | float
"x" | float
"x" | float(1.5)
3 | float
"1e3" | float
"inf" | float
none | float
42 | string
1.0 | string
true | string
none | string
xs | string
missing | string
-5 | abs
-5.5 | abs
"x" | abs
2.5 | round
3.5 | round
2.675 | round(2)
1234.5678 | round(-2)
7 | round
2.1 | round(0, "ceil")
2.9 | round(method="floor")
2.123 | round(2, "ceil")
2 | round(1, "ceil")
"x" | round
2.5 | round(0, "up")
"a\nb\n\nc" | indent
"a\nb\n\nc" | indent(2, true)
"a\nb\n\nc" | indent(2, blank=true)
"a\nb\n" | indent(width=3)
"a\nb" | indent("> ", first=true)
lines | indent(1)
"" | indent(2, true)
"<a href='x'>&\"</a>" | e
"<b>" | escape | escape
"<b>" | safe | e
"<b>" | e | forceescape
("<b>" | safe) + "<i>"
("<b>" | safe) ~ "<i>"
"a b&c/ü=1" | urlencode
{"a b": 1, "c": "d&e"} | urlencode
[["a", 1]] | urlencode
"one two  three-four it's" | wordcount
messages | tojson
tools | tojson
tools | tojson(indent=2)
tools | tojson(indent=4, sort_keys=true)
d | tojson(separators=(",", ":"))
d | tojson(separators=[",", "="])
{} | tojson(indent=2)
[] | tojson(indent=2)
[[], {}, [1, [2]]] | tojson(indent=1)
[1] | tojson(indent="--")
[1, [2]] | tojson(indent=0)
u | tojson
u | tojson(ensure_ascii=true)
"😀\u2028" | tojson(ensure_ascii=true)
ctl | tojson
"</script>&'" | tojson
[1.0, 2.5, 1e100, 1e-7, -0.0, 10000000000000000.0] | tojson
[true, false, none] | tojson
{1: 2, none: 3, true: 4, 2.5: 5} | tojson
{(1, 2): 3} | tojson
(1, 2) | tojson
missing | tojson
[missing] | tojson
range(3) | tojson
d.items() | tojson
namespace(a=1) | tojson
xs | map("string") | tojson
("<" | e) | tojson
big
big * 2
d.items is callable
range is defined
9223372036854775807
neg | abs
bos_token ~ eos_token
unk_token is defined
documents is none
tools is none
add_generation_prompt
namespace(a=1).a
namespace({"a": 2}, b=3).b
namespace().x
namespace(a=1)
dict(a=1, b=2)
dict([("a", 1), ["b", 2]])
dict({"a": 1}, a=2)
dict(1)
raise_exception("no way")
raise_exception(1)
strftime_now("%Y-%m-%d %H:%M:%S %d %b %B %A %j")
strftime_now("")
strftime_now(1)
s.nosuch
s.nosuch()
xs.nosuch
n.x
none.x
none[0]
n[0]
true.x
messages[0].content
messages[0]["role"]
messages[1].tool_calls[0].arguments.b[0]
messages[-1].content | trim
messages[9].role
messages[0].nothing is defined
messages[9] is defined
messages | map(attribute="role") | join(",")
messages | selectattr("role", "equalto", "user") | list | length
messages | last | length
(messages | first).role
messages[::-1] | map(attribute="role") | list
messages[1:] | length
"a" is string is true
[1, 2,]
{"a": 1,}
(1, 2,)
range(1, 3,) | list
foo(1
1 +
"unclosed
[1, 2
1 if
a b
.x
x..y
1 2
{"a" 1}
{{}}
""")

# Whole templates.
TEMPLATES = [
    "", "plain", "line\n", "line\n\n", "\n", "a\r\nb\rc\n", "{{ 1 }}\n", "{{ 1 }}\n\n", "{{ '{{' }}", "{ { } }", "{", "{{ 1 }", "}}",
    "{# comment #}x", "a {# c #} b", "{# a\nb #}\nx", "  {# c #}\nx", "{#- c -#} x", "a {#- c #} b", "{# unclosed", "{#-#}", "{##}x",
    "{% raw %}{{ x }}{% endraw %}", "{% raw -%}\n {{ x }}\n{%- endraw %}", "  {% raw %} x {% endraw %}  \ny", "{% raw %}{% raw %}{% endraw %}",
    "{% raw %}x", "a\n  {%- raw %} b {% endraw -%}  c",
    "{% if t %}\nyes\n{% endif %}\nend", "  {% if t %}\n  yes\n  {% endif %}\nend", "a {% if t %} b {% endif %} c",
    "a\n\n{%- if t -%}\n\n b \n\n{%- endif -%}\n\nc", "a\n  {%+ if t %}\nb{% endif +%}\nc", "a \n {{- 1 -}} \n b", "a \n {{+ 1 }} b",
    "x{% if t -%}   y{%- endif %}  z", "\t{% set x = 1 %}\n{{ x }}", "a\n \u00a0{% if t %}b{% endif %}", "{% if t %}{% endif %}\n\n\nx",
    "{% if no %}a{% elif n == 5 %}b{% else %}c{% endif %}", "{% if no %}a{% elif missing %}b{% else %}c{% endif %}",
    "{% if t and (n > 4 or no) %}1{% endif %}", "{% if xs %}full{% endif %}{% if [] %}empty{% endif %}", "{% if %}x{% endif %}",
    "{% if t %}", "{% endif %}", "{% else %}", "{% if t %}{% endfor %}", "{% nosuch %}", "{% if t %}a{% else %}b{% else %}c{% endif %}",
    "{% if t, no %}x{% endif %}", "{% if t 5 %}x{% endif %}",
    "{% for x in xs %}{{ x }},{% endfor %}", "{% for x in [] %}a{% else %}none{% endfor %}", "{% for x in missing %}a{% else %}none{% endfor %}",
    "{% for x in n %}a{% endfor %}", "{% for x in none %}a{% endfor %}", "{% for c in 'aé😀' %}[{{ c }}]{% endfor %}", "{% for k in d %}{{ k }} {% endfor %}",
    "{% for k, v in d.items() %}{{ k }}={{ v }};{% endfor %}", "{% for k, v in d | items %}{{ k }}={{ v }};{% endfor %}",
    "{% for k, v in d | dictsort %}{{ k }}={{ v }};{% endfor %}", "{% for a, b in [(1, 2), [3, 4]] %}{{ a }}-{{ b }} {% endfor %}",
    "{% for a, (b, c) in [(1, (2, 3))] %}{{ a }}{{ b }}{{ c }}{% endfor %}", "{% for a, b in [(1, 2, 3)] %}{% endfor %}",
    "{% for a, b in [(1,)] %}{% endfor %}", "{% for a, b in [5] %}{% endfor %}", "{% for a, b in ['xy'] %}{{ b }}{{ a }}{% endfor %}",
    "{% for x in 1, 2, 3 %}{{ x }}{% endfor %}", "{% for x in xs if x > 1 %}{{ loop.index }}:{{ x }}/{{ loop.length }} {% endfor %}",
    "{% for x in xs if x > 9 %}a{% else %}none{% endfor %}", "{% for u in users if u.age == 30 %}{{ u.name }}{{ ', ' if not loop.last }}{% endfor %}",
    "{% for x in xs %}{{ loop.index }}{{ loop.index0 }}{{ loop.revindex }}{{ loop.revindex0 }}{{ loop.first }}{{ loop.last }}{{ loop.length }}{{ loop.depth }}{{ loop.depth0 }} {% endfor %}",
    "{% for x in xs %}{{ loop.previtem }}<{{ x }}>{{ loop.nextitem }} {% endfor %}", "{% for x in xs %}{{ loop.previtem is defined }}{{ loop.nextitem is undefined }} {% endfor %}",
    "{% for x in xs %}{{ loop.cycle('a', 'b') }}{% endfor %}", "{% for x in xs %}{{ loop.cycle() }}{% endfor %}", "{% for x in [1, 1, 2, 2, 1] %}{{ loop.changed(x) }} {% endfor %}",
    "{% for x in xs %}{% for y in xs %}{{ loop.index }}{% endfor %}{{ loop.index }} {% endfor %}", "{% for x in xs %}{% set outer = loop %}{% for y in ws %}{{ outer.index }}{{ loop.index }} {% endfor %}{% endfor %}",
    "{% for x in range(5) %}{% if x == 3 %}{% break %}{% endif %}{{ x }}{% endfor %}", "{% for x in range(5) %}{% if x is odd %}{% continue %}{% endif %}{{ x }}{% endfor %}",
    "{% for x in xs %}{% for y in xs %}{% if y == 1 %}{% break %}{% endif %}{{ y }}{% endfor %}|{% endfor %}", "{% break %}",
    "{% for x in [] %}{% break %}{% else %}e{% endfor %}", "{% for x in nested recursive %}{{ loop(x) if x is iterable else x }}{{ loop.depth }} {% endfor %}",
    "{% for x in xs %}{{ loop(xs) }}{% endfor %}", "{% for x in xs %}{% endfor %}{{ x }}{{ loop }}", "{% for x in xs %}{{ loop.nosuch }}{% endfor %}", "{% for x in xs %}{{ loop }}{% endfor %}",
    "{% set loop = 5 %}{% for x in xs %}{{ loop.index }}{% endfor %}{{ loop }}", "{% for x in xs recursive %}{{ x }}{% endfor %}", "{% for loop in xs %}{{ loop }}{% endfor %}", "{% for true in xs %}{% endfor %}", "{% for x.y in xs %}{% endfor %}", "{% for x in %}{% endfor %}", "{% for x xs %}{% endfor %}",
    "{% for g in users | groupby('age') %}{{ g.grouper }}:{{ g.list | length }} {% endfor %}", "{% for a, us in users | groupby('age') %}{{ a }}:{{ us | map(attribute='name') | join }} {% endfor %}",
    "{% set gen = xs | map('string') %}{{ gen | list }}{{ gen | list }}", "{% set gen = xs | select %}{{ gen is iterable }}{{ gen is sequence }}{{ gen is defined }}{{ 1 in gen }}{% for g in gen %}{{ g }}{% endfor %}",
    "{% for row in range(5) | batch(2) %}{{ row | join('-') }};{% endfor %}",
    "{% set x = 1 %}{{ x }}", "{% set x, y = 1, 2 %}{{ x }}{{ y }}", "{% set (x, y) = [1, 2] %}{{ y }}", "{% set x, y = 1 %}", "{% set x = 1, 2 %}{{ x }}", "{% set x %}a{{ n }}b{% endset %}{{ x }}|{{ x | length }}",
    "{% set x | upper %}abc{% endset %}{{ x }}", "{% set x | replace('a', 'b') | upper %}abc{% endset %}{{ x }}", "{% set x %}{% set y = 2 %}{% endset %}{{ y }}", "{% set x = 1 %}{% if t %}{% set x = 2 %}{% endif %}{{ x }}",
    "{% set x = 1 %}{% for i in xs %}{% set x = x + 1 %}{{ x }}{% endfor %}{{ x }}", "{% for i in xs %}{% if loop.first %}{% set y = i %}{% endif %}{{ y }}|{% endfor %}", "{% set ns = namespace(x=1) %}{% for i in xs %}{% set ns.x = ns.x + i %}{% endfor %}{{ ns.x }}",
    "{% set ns = namespace() %}{% set ns.a, ns.b = 1, 2 %}{{ ns.a }}{{ ns.b }}{{ ns.c is defined }}", "{% set d.x = 1 %}", "{% set nope.x = 1 %}", "{% set ns = namespace(found=false) %}{% for m in messages %}{% if m.role == 'assistant' %}{% set ns.found = loop.index0 %}{% endif %}{% endfor %}{{ ns.found }}",
    "{% set ns = namespace(l=[]) %}{% for x in xs %}{% set ns.l = ns.l + [x * 2] %}{% endfor %}{{ ns.l }}", "{% set ns = namespace(a=1) %}{% set ns.items = 2 %}{{ ns.items }}{{ ns['a'] }}", "{% set ns = namespace(a=1) %}{% set ns.f %}block{% endset %}{{ ns.f }}", "{% set none = 1 %}", "{% set 1 = 1 %}", "{% set x %}", "{% set x = %}", "{% set messages = messages[1:] %}{{ messages | length }}{{ messages[0].role }}",
    "{% macro m(a, b=2) %}{{ a }}-{{ b }}{% endmacro %}{{ m(1) }} {{ m(1, 3) }} {{ m(b=5, a=4) }} {{ m() }}", "{% macro m(a) %}{{ a }}{% endmacro %}{{ m(1, 2) }}", "{% macro m(a) %}{{ a }}{% endmacro %}{{ m(z=1) }}", "{% macro m(a) %}{{ a }}{% endmacro %}{{ m(1, a=2) }}",
    "{% macro m() %}{{ varargs }}{{ kwargs }}{% endmacro %}{{ m(1, 2, x=3) }}", "{% macro m(a, b=a) %}{{ a }}{{ b }}{% endmacro %}{{ m(1) }}", "{% macro m(a, b=missing) %}[{{ b }}]{% endmacro %}{{ m(1) }}", "{% macro m(a=1, b) %}{% endmacro %}", "{% macro fact(n) %}{{ 1 if n <= 1 else n * (fact(n - 1) | int) }}{% endmacro %}{{ fact(10) }}",
    "{% set x = 1 %}{% macro m() %}{{ x }}{% set x = 5 %}{{ x }}{% endmacro %}{{ m() }}{{ x }}", "{% macro m() %}{{ y }}{% endmacro %}{% set y = 7 %}{{ m() }}", "{% macro m() %}{{ messages | length }}{% endmacro %}{{ m() }}", "{% macro a() %}A{{ b() }}{% endmacro %}{% macro b() %}B{% endmacro %}{{ a() }}", "{% for x in xs %}{% macro m() %}{{ x }}{% endmacro %}{{ m() }}{% endfor %}",
    "{% macro m() %}\n  text\n{% endmacro %}[{{ m() }}]", "{% macro m() %}{% endmacro %}{{ m }}{{ m.name }}", "{% macro m(a, b) %}{% endmacro %}{{ m.name }}{{ m.arguments }}", "{% macro m() %}x{% endmacro %}{{ m() | upper }}{{ m() ~ 'y' }}{{ m() | length }}", "{% macro wrap() %}<{{ caller() }}>{% endmacro %}{% call wrap() %}in{% endcall %}",
    "{% macro each(l) %}{% for x in l %}{{ caller(x, loop.index) }}{% endfor %}{% endmacro %}{% call(v, i) each(xs) %}{{ i }}={{ v }} {% endcall %}", "{% macro m() %}x{% endmacro %}{% call m() %}y{% endcall %}", "{% macro m() %}{{ caller is defined }}{{ caller }}{% endmacro %}{{ m() }}", "{% macro m() %}{{ caller() }}{% endmacro %}{{ m() }}", "{% call 5 %}{% endcall %}", "{% macro m(*a) %}{% endmacro %}", "{% macro m(x) %}{{ x }}{% endmacro %}{{ m(*[1]) }}{{ m(**{'x': 2}) }}", "{% macro m(x, y) %}{{ x }}{{ y }}{% endmacro %}{{ m(*[1, 2]) }}{{ m(1, **{'y': 3}) }}{{ m(*'ab') }}",
    "{% macro loop_in() %}{% for i in xs %}{% if i == 1 %}{% break %}{% endif %}{{ i }}{% endfor %}{% endmacro %}{{ loop_in() }}", "{% macro m(x) %}{% if x > 0 %}{{ x }}{{ m(x - 1) }}{% endif %}{% endmacro %}{{ m(20) }}", "{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}", "{% macro m(x) -%}\n  {{ x }}\n{%- endmacro %}[{{ m(3) }}]",
    "{% filter upper %}abc{{ s }}{% endfilter %}", "{% filter replace('a', 'b') | upper %}banana{% endfilter %}", "{% filter trim %}\n  x \n{% endfilter %}|", "{% filter nosuch %}x{% endfilter %}", "{% filter upper %}{% set q = 1 %}{% endfilter %}{{ q }}",
    "{% with a = 1, b = 2 %}{{ a }}{{ b }}{% endwith %}{{ a }}", "{% with %}{% set z = 3 %}{{ z }}{% endwith %}{{ z }}", "{% set a = 1 %}{% with a = 2, b = a %}{{ a }}{{ b }}{% endwith %}", "{% generation %}text {{ n }}{% endgeneration %}!", "{% for m in messages %}{% if m.role == 'assistant' %}{% generation %}{{ m.content }}{% endgeneration %}{% else %}{{ m.content }}{% endif %}{% endfor %}", "{% generation %}{% set g = 1 %}{{ g }}{% endgeneration %}{{ g }}",
    "{% set c = cycler('a', 'b', 'c') %}{{ c.next() }}{{ c.next() }}{{ c.current }}{{ c.next() }}{{ c.next() }}{{ c.reset() }}{{ c.current }}", "{% set j = joiner(', ') %}{% for x in xs %}{{ j() }}{{ x }}{% endfor %}", "{% set j = joiner() %}{{ j() }}{{ j() }}", "{{ 'a' if true }}{{ 'b' if false }}c",
    "{{ messages[0]['content'] }}", "{% for m in messages %}<|{{ m.role }}|>\n{{ m.content | trim }}{{ eos_token }}\n{% endfor %}{% if add_generation_prompt %}<|assistant|>\n{% endif %}", "{%- for message in messages -%}\n    {{- '<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>' + '\\n' -}}\n{%- endfor -%}",
    "{% if messages[0]['role'] == 'system' %}s{% else %}{{ raise_exception('needs ' ~ 'system') }}{% endif %}", "{% for m in messages %}{% if (m.role == 'user') != (loop.index0 % 2 == 0) %}{{ raise_exception('alternate') }}{% endif %}{{ m.role }}{% endfor %}", "{% set a = '</think>' %}{% set c = 'x</think>\\n\\ny' %}{{ c.split(a)[-1].lstrip('\\n') }}|{{ c.split(a)[0].rstrip('\\n').split('<think>')[-1].lstrip('\\n') }}",
    "{% for t in tools %}{{ t.function | tojson(indent=4) }}\n{% endfor %}", "{% for t in tools %}{% for k, v in t.function.parameters | items %}{{ k }}:{{ v }}{% if not loop.last %}, {% endif %}{% endfor %}{% endfor %}", "{{ n\n + \n1 }}", "{{n}}{{-n}}{{- n -}}{{~ n }}", "{{ n }}\n{{ n }}\n", "{{ {'a': {'b': {}}} }}", "{{ {'a': 1}['a'] }}", "{{ 'a' | upper | lower | length }}",
    "{{ xs | map('string') | map('upper') | join(',') | replace(',', ';') }}", "{{ -1 | abs }}{{ (-1) | abs }}", "{{ not true == false }}", "{{ 1 if 2 if 0 else 3 else 4 }}", "{{ [x for x in xs] }}", "{{ lambda x: x }}", "{{ x = 1 }}", "{{ a; b }}", "{{ }}", "{% %}", "{{ $ }}", "{{ a ! b }}", "{{ 'x' is string() }}", "{{ xs is in([[3,1,2]]) }}", "{% set x = 'a' if no else 'b' %}{{ x }}", "{% set xs2 = xs | sort %}{{ xs }}{{ xs2 }}",
    "{% set m = messages | selectattr('role', 'equalto', 'user') | list %}{{ m[-1].content }}", "{{ messages | map(attribute='content') | map('trim') | join('|') }}", "{% set text = '' %}{% for m in messages %}{% set text = text ~ m.role %}{% endfor %}[{{ text }}]", "{{ ('a', 'b') | join }}{{ ('a',) }}", "{{ 'é' | length }}", "{{ s.split(' ')[0].lower()[1:3] ~ '!' }}", "{{ d.items() | list | first | last }}", "{{ d.items() | length }}", "{{ d.keys() | list | sort | join }}", "{{ d.values() | sum }}", "{{ d.items()[0] }}",
    "{% include 'x' %}", "{% import 'x' as y %}", "{% extends 'x' %}", "{% do xs.append(1) %}", "{% for i in range(3) %}{{ i }}{% if not loop.last %}\n{% endif %}{% endfor %}\n", "{% for i in range(3) -%}\n  {{ i }}\n{% endfor %}end", "{%- if t %} a {%- else %} b {%- endif %} c", "  {{ n }}  \n  {% if t %}x{% endif %}  \n", "{% if t %}\r\nx\r\n{% endif %}\r\n", "{# c #}\n\n{# d #}\nx", "{%if t%}a{%endif%}", "{{'a'}}{{\"b\"}}", "{{ 'a' 'b' }}", "{{ \"it's\" }}{{ 'a\\'b' }}", "{{ '\\\\n' }}{{ 'a\\tb' }}",
]

SNIPPETS = TEMPLATES + ["{{ " + e + " }}" for e in EXPRESSIONS]
