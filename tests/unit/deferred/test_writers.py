"""The writers: twice is once, what is foreign survives, and what they write reads back."""

from __future__ import annotations

from xml.etree import ElementTree

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from installers.deferred import hadoopxml, properties, sections
from installers.errors import NodeError

SITE = b"""<?xml version="1.0"?>
<?xml-stylesheet type="text/xsl" href="configuration.xsl"?>
<!-- Licensed to nobody -->
<configuration>
  <property>
    <name>yarn.nodemanager.local-dirs</name>
    <value>/hadoop/yarn/nm-local-dir</value>
    <description>a &lt;b&gt; <![CDATA[</configuration>]]></description>
  </property>
  <!-- <property><name>yarn.resource-types</name><value>off</value></property> -->
</configuration>
"""
LIMIT = settings(max_examples=60)
NAME = st.from_regex(r"[a-z][a-z0-9.-]{0,20}", fullmatch=True)
# What XML 1.0 can hold, without the edges that Hadoop's readers trim.
VALUE = st.text(
    st.characters(min_codepoint=0x20, blacklist_categories=("Cs", "Cc"), max_codepoint=0xFFFD),
    min_size=1,
    max_size=20,
).filter(lambda text: text.strip() == text)
SETTINGS = st.dictionaries(NAME, VALUE, max_size=4)
BODY = st.lists(
    st.one_of(
        st.just("  <!-- a comment -->\n"),
        st.just("\n"),
        st.just("<xi:include xmlns:xi='http://www.w3.org/2001/XInclude' href='x'/>"),
        st.tuples(NAME, VALUE).map(
            lambda pair: (
                f"<property><name> {pair[0]} </name><value>{hadoopxml._escape(pair[1])}</value>"
                "</property>\n"
            )
        ),
    ),
    max_size=5,
).map("".join)


@LIMIT
@given(BODY, SETTINGS, SETTINGS, st.sampled_from(["\n", "\r\n"]))
def test_xml(body: str, first: dict[str, str], second: dict[str, str], line_end: str) -> None:
    text = f"<configuration>\n{body}</configuration>\n".replace("\n", line_end).encode()
    once = hadoopxml.write(text, first, "x")
    assert hadoopxml.write(once, first, "x") == once
    assert hadoopxml.ours(once, "x") == first
    assert {**hadoopxml.read(text, "x"), **first} == hadoopxml.read(once, "x")
    changed = hadoopxml.write(once, second, "x")
    assert changed == hadoopxml.write(text, second, "x")
    assert hadoopxml.write(changed, {}, "x") == text
    ElementTree.fromstring(once)


def test_xml_keeps_comments_and_what_looks_like_ours() -> None:
    new = hadoopxml.write(SITE, {"yarn.resource-types": "yarn.io/gpu"}, "yarn-site.xml")
    start, _, rest = SITE.rpartition(b"</configuration>")
    assert new.startswith(start)
    assert new.endswith(b"</configuration>" + rest)
    assert hadoopxml.read(new, "x")["yarn.resource-types"] == "yarn.io/gpu"
    assert hadoopxml.write(new, {}, "x") == SITE


@pytest.mark.parametrize(
    "text", [b"<configuration/>", b"<?xml version='1.0'?>\n<configuration  />\n", b"", b"  \n"]
)
def test_xml_without_anything_in_it(text: bytes) -> None:
    new = hadoopxml.write(text, {"a": "<&>é"}, "x")
    assert hadoopxml.read(new, "x") == {"a": "<&>é"}
    assert hadoopxml.write(new, {"a": "<&>é"}, "x") == new
    assert hadoopxml.read(hadoopxml.write(new, {}, "x") or b"<configuration/>", "x") == {}


def test_a_file_of_ours_alone_goes_when_it_is_empty() -> None:
    assert hadoopxml.write(hadoopxml.write(b"", {"a": "b"}, "x"), {}, "x") == b""


@pytest.mark.parametrize(
    ("text", "what"),
    [
        (b"<configuration><property></configuration>", "is not XML: mismatched tag in line 1"),
        (b"<configuration/><property/>", "junk after document element"),
        (SITE + SITE, "XML"),
        (b"<configuration><property><value>a & b</value></property></configuration>", "not XML"),
        (b"<web-app/>", "outermost element is <web-app>"),
        ("<configuration/>".encode("utf-16"), "is UTF-16"),
        (
            hadoopxml.write(SITE, {"a": "b"}, "x").replace(hadoopxml._END.encode(), b" gone "),
            "marks of our block",
        ),
    ],
)
def test_xml_that_hadoop_could_not_read(text: bytes, what: str) -> None:
    with pytest.raises(NodeError, match=what) as caught:
        hadoopxml.write(text, {"a": "b"}, "/etc/hadoop/conf/yarn-site.xml")
    assert str(caught.value).startswith("/etc/hadoop/conf/yarn-site.xml: ")
    assert caught.value.remedy


def test_a_final_property_of_another_cannot_be_overridden() -> None:
    final = b"<configuration><property><name>a</name><value>1</value><final>true</final></property>"
    final += b"</configuration>"
    with pytest.raises(NodeError, match="a is final with the value '1', not '2'"):
        hadoopxml.write(final, {"a": "2"}, "x")
    assert hadoopxml.read(hadoopxml.write(final, {"a": "1"}, "x"), "x") == {"a": "1"}


CFG = """yarn.nodemanager.linux-container-executor.group=hadoop #configured value
banned.users=#comma separated
# a comment
min.user.id=1000
[docker]
  module.enabled=false
[gpu]
module.enabled = false
  gpu.allowed-device-minor-numbers=0,1"""
WANTED = {
    "": {"yarn.nodemanager.linux-container-executor.group": "yarn"},
    "gpu": {"module.enabled": "true"},
    "cgroups": {"root": "/sys/fs/cgroup", "yarn-hierarchy": "yarn"},
}


def test_B39_sections() -> None:
    new = sections.write(CFG, WANTED, "x")
    assert new.count("[gpu]") == new.count("[cgroups]") == 1
    found = sections.read(new)
    assert found[""]["yarn.nodemanager.linux-container-executor.group"] == "yarn"
    assert found["docker"] == {"module.enabled": "false"}
    assert found["gpu"] == {"module.enabled": "true", "gpu.allowed-device-minor-numbers": "0,1"}
    assert sections.ours(new, "x") == WANTED
    assert sections.write(new, WANTED, "x") == new
    assert sections.write(new, {}, "x") == CFG + "\n"


CFG_LINE = st.one_of(
    st.just("# a comment"),
    st.just(""),
    st.sampled_from(["[gpu]", "[cgroups]", " [docker]"]),
    st.tuples(NAME, NAME).map("=".join),
    st.sampled_from(["root=/x", "module.enabled=false", "yarn-hierarchy = other"]),
)


@LIMIT
@given(st.lists(CFG_LINE, max_size=10).map(lambda lines: "".join(f"{line}\n" for line in lines)))
def test_sections_survive(text: str) -> None:
    new = sections.write(text, WANTED, "x")
    assert sections.write(new, WANTED, "x") == new
    assert sections.ours(new, "x") == WANTED
    assert sections.write(new, {}, "x") == text
    headers = [line.strip() for line in new.splitlines() if line.strip() == "[gpu]"]
    assert len(headers) == max(1, text.splitlines().count("[gpu]"))


def test_a_torn_block_is_named() -> None:
    new = sections.write(CFG, WANTED, "x").replace("# <<< airlock gpu\n", "", 1)
    with pytest.raises(NodeError, match="marks of our block"):
        sections.write(new, WANTED, "/etc/hadoop/conf/container-executor.cfg")


DEFAULTS = """# Default system properties
spark.master                     yarn
spark.executor.cores=4
spark.executor.memory: 5g
spark.driver.extraJavaOptions  -Da=b \\
    -Dc=d
! another comment
spark.a\\=b x\\ty
"""


def test_properties_are_read_as_java_does() -> None:
    assert properties.read(DEFAULTS) == {
        "spark.master": "yarn",
        "spark.executor.cores": "4",
        "spark.executor.memory": "5g",
        "spark.driver.extraJavaOptions": "-Da=b -Dc=d",
        "spark.a=b": "x\ty",
    }


@LIMIT
@given(SETTINGS, st.sampled_from([DEFAULTS, "", "spark.a b"]))
def test_properties(wanted: dict[str, str], text: str) -> None:
    defaults = properties.SparkDefaults("/x")
    new = defaults.write(text, wanted)
    assert defaults.write(new, wanted) == new
    assert defaults.ours(new) == wanted
    assert properties.read(new) == {**properties.read(text), **wanted}
    assert defaults.foreign(new) == properties.read(text)
    assert defaults.write(new, {}).rstrip("\n") == text.rstrip("\n")
