"""Sources written by hand, whose marks say what must be found, to the character."""

from __future__ import annotations

import re

# In the sources below «K:raise» is an exception keyword, «A:=» an assignment.
CODES = {"K": "exception_keyword", "A": "assignment"}

PYTHON = {
    "handlers": """\
«K:try»: pass
«K:except» (KeyError, socket.timeout, a.b.Error) as e: «K:raise»
«K:except» os_error: «K:raise» e
«K:except» (*A, (B)): «K:raise» self.error
«K:except» tuple(found): pass
«K:except»: pass
else: x: int «A:=» 1
«K:finally»: x «A:+=» 1
""",
    "except star": "«K:try»: pass\n«K:except»* (A, B) as g: pass\n«K:except»*C: pass\n",
    "raised": """\
def f(a, b=1, *, c="raise"):
    «K:raise» errors. \\
        Missing  ('x', code=4, hint="y")
    «K:raise» (
        D  # raise ValueError("no")
    )(f"two {x['k']!r:=^{width}} {'nested'}")
print("raise", 'except', E("unraised"))
""",
    "assignment": """\
a «A:=» b «A:=» c, *d «A:=» (1, 2)
(a) «A:=» (b) «A:=» (  # = comment
    c == d)
x.y["z = 1"] «A:=» f(k=1, *a, **b) if p <= q else (r := s) != t >= u
x «A:**=» 2; x «A://=» 3; x «A:>>=» 4; x @ y; x «A:@=» y
n: dict[str, "a = b"]
n: dict[str, int] «A:=» {}
(n): int «A:=» 1
def g(a=1, *, b: int = 2, c = (lambda d=3: d)) -> "e = f": return a == b
@decorate(name="x", other = 3)
class C(B, metaclass=M): z «A:=» \\
    4  # type: int = 5
f"{x=} {x = !r:=^10} {y:{'='}>3}"; w «A:=» f"{a = }"
for i in range(3): pass
with open("f") as f: h «A:=» f"{ {'a': 1}['a'] }"
""",
    "wide characters": "s «A:=» 'é漢😀'; ñ «A:=» 2; «K:raise» Größe('ü😀') from Ωmega",
    "wide attribute": "'漢'; «K:raise» ñé.漢.Éa(x, '漢字', é='y')",
    "tabs and form feed": "if x:\n\t\ty\t«A:=»\t1\n\t\t«K:raise»\tE(\t'a')\n\fz «A:=» 2\n",
    "carriage returns": "x «A:=» '''a\r\nb''';y «A:=» 1\r\n«K:raise» E(\r\n  'q')\r\n",
    "lone carriage returns": "x «A:=» 1\ry «A:=» 2\r«K:raise» E('q')\r",
    "other line ends": "s «A:=» 'a\x0bb\x0cc\x1cd\x85e\u2028f'\nx «A:=» 1 # \u2029 y\nz «A:=» 3",
    "byte-order mark": "\ufeffx «A:=» 'é'\n«K:raise» E\n",
    "encoding line": "# -*- coding: latin-1 -*-\nx «A:=» 'é'; y «A:=» 1\n",
    "soft keywords": "match «A:=» case «A:=» 1\nmatch x:\n    case C(a=1): type «A:=» 2\n",
    "invalid escape, no newline at the end": "x «A:=» '\\d'",
    "names": "raised «A:=» tries; excepted «A:=» raise_; x.error(y='try')  # x = 1; raise E",
    "empty": "",
}

LUA = {
    "plain": """\
local ok, err «A:=» «K:pcall»(function() «K:error»("bad") end)
if not ok then «K:error»('worse: ' .. err, 2) end
«K:assert»(io.open("file = 1"), "cannot open")
«K:xpcall»(f, function(e) x «A:=» e end)
""",
    "not the global": """\
log.error("a"); log:error("b"); _G.assert("c", "d"); pcall(error, "e")
local function error(m) end
function M.assert(x) end function M:pcall() end function xpcall() end
assert.equal(1, 2); local pcall «A:=» pcall; t «A:=» {error = 1, assert}
::error:: goto error
errors("a"); xerror("b"); errör("c")
""".replace("pcall(error", "«K:pcall»(error"),
    "calls without brackets": """\
«K:error» "a" «K:error»[[b]] «K:error» {code = "c"} «K:assert» "d"
x «A:=» y .. «K:error» 'e' ::l:: «K:error»  -- comment "no"
  "f"
""",
    "assignment": """\
x, y «A:=» 1, 2; a.b["c"] «A:=» a == b; t[1][2] «A:=»x~=y
local z <const>, w <close> «A:=» 1, 2
local t «A:=» { a = 1, ["b"] = 2, c = { d = 3 }; 4,
  f = function(e) e «A:=» 1; for i = 1, 2 do g «A:=» {h = i} end end, j = x == y }
for i = 1, 10 do k «A:=» i <= 3 or i >= 4 end
for key, value in pairs(t) do t[key] «A:=» value end
repeat local u «A:=» 1 until u == 1
while a ~= b do if a then b «A:=» a elseif b then a «A:=» b else c «A:=» nil end end
f {a = 1}.b «A:=» 2 goto done ::done::
""",
    "strings and comments": """\
s «A:=» "x = 1 -- no" .. 'error("no") \\' = ' -- y = 2; error("c")
t «A:=» [==[ ]] ]=] x = 1
error("no") ]==] u «A:=» 1 --[[ v = 1
--]] v «A:=» 2 --[==[ w = 3 ]] ]==] w «A:=» 4
--[ only a line: x = 5
--[=x = 6
x «A:=» "a\\
b = 1" y «A:=» "c\\z
   d = 2" z «A:=» 'e\\x41\\u{7A}\\65'
a «A:=» b[c[1]] d «A:=» #e - -f --g = h
""",
    "numbers": "x «A:=» 0x1p4 y «A:=» 1e+5 z «A:=» .5e-3 w «A:=» 3. v «A:=» 42ULL u «A:=» 0xA.8p0",
    "operators": "x «A:=» a//b ~ c << d >> e & f | g y «A:=» a .. b h «A:=» ...\n",
    "wide characters": "s «A:=» 'é漢😀' «K:error»('ü😀') ñ «A:=» 1\n",
    "carriage returns": 'x «A:=» 1\r\n-- y = 2\r\nz «A:=» "a\\\r\nb"\r\n«K:error»(\r\n"q")\r\n',
    "byte-order mark": "\ufeffx «A:=» 1",
    "first line": "#!/usr/bin/lua x = 'é\nx «A:=» 1",
    "typed": "local x: number «A:=» 1\n",
    "empty": "",
}


def read_marks(marked: str) -> tuple[str, dict[str, list[tuple[int, int]]]]:
    text, position = "", 0
    spans: dict[str, list[tuple[int, int]]] = {name: [] for name in CODES.values()}
    for match in re.finditer(r"«([KA]):(.*?)»", marked, re.DOTALL):
        text += marked[position : match.start()]
        spans[CODES[match[1]]].append((len(text), len(text) + len(match[2])))
        text, position = text + match[2], match.end()
    return text + marked[position:], spans
