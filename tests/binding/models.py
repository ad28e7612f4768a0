"""The models whose rows go through the WAL here.

They are not managed: their tables are made by the test that needs them, and no other test pays for them.
"""

from __future__ import annotations

import uuid
from typing import Any

import django
from django.contrib.postgres import fields as postgres
from django.contrib.postgres.search import SearchVectorField
from django.db import models
from django.db.models.functions import Lower

from tests.binding.fields import (
    CountedField,
    DatabaseTypeField,
    EncryptedField,
    ExactNumbers,
    MoneyField,
    VectorField,
)


class OnDemand(models.Model):
    """A model whose table a test makes for itself."""

    class Meta:
        abstract = True
        app_label = "testapp"
        managed = False


class Target(OnDemand):
    """What foreign keys point at: its key is no number."""

    code = models.CharField(primary_key=True, max_length=20)

    class Meta(OnDemand.Meta):
        db_table = "binding_target"


class CoreFields(OnDemand):
    """One of every field that Django ships; Image is FileField's column and needs Pillow."""

    id = models.AutoField(primary_key=True)
    binary = models.BinaryField(null=True)
    boolean = models.BooleanField(null=True)
    char = models.CharField(max_length=200, null=True)
    collated = models.CharField(max_length=200, null=True, db_collation="C")
    unlimited = models.CharField(null=True)
    date = models.DateField(null=True)
    moment = models.DateTimeField(null=True)
    decimal = models.DecimalField(max_digits=30, decimal_places=10, null=True)
    duration = models.DurationField(null=True)
    email = models.EmailField(null=True)
    file = models.FileField(null=True)
    file_path = models.FilePathField(null=True)
    float = models.FloatField(null=True)
    address = models.GenericIPAddressField(null=True)
    address6 = models.GenericIPAddressField(protocol="IPv6", null=True)
    integer = models.IntegerField(null=True)
    big = models.BigIntegerField(null=True)
    small = models.SmallIntegerField(null=True)
    positive = models.PositiveIntegerField(null=True)
    positive_big = models.PositiveBigIntegerField(null=True)
    positive_small = models.PositiveSmallIntegerField(null=True)
    json = models.JSONField(null=True)
    slug = models.SlugField(null=True)
    text = models.TextField(null=True)
    time = models.TimeField(null=True)
    url = models.URLField(null=True)
    uuid = models.UUIDField(null=True)
    foreign = models.ForeignKey(Target, models.CASCADE, null=True, related_name="+")
    one = models.OneToOneField(Target, models.CASCADE, null=True, related_name="+")

    class Meta(OnDemand.Meta):
        db_table = "binding_core"


class BigKey(OnDemand):
    """A key of eight bytes."""

    id = models.BigAutoField(primary_key=True)

    class Meta(OnDemand.Meta):
        db_table = "binding_bigkey"


class SmallKey(OnDemand):
    """A key of two bytes."""

    id = models.SmallAutoField(primary_key=True)

    class Meta(OnDemand.Meta):
        db_table = "binding_smallkey"


class UUIDKey(OnDemand):
    """A key that the application makes."""

    id = models.UUIDField(primary_key=True, default=uuid.uuid4)
    text = models.TextField(default="")

    class Meta(OnDemand.Meta):
        db_table = "binding_uuidkey"


class PostgresFields(OnDemand):
    """The fields of django.contrib.postgres."""

    id = models.BigAutoField(primary_key=True)
    integers = postgres.ArrayField(models.IntegerField(null=True), null=True)
    nested = postgres.ArrayField(postgres.ArrayField(models.CharField(max_length=20)), null=True)
    decimals = postgres.ArrayField(models.DecimalField(max_digits=12, decimal_places=4), null=True)
    moments = postgres.ArrayField(models.DateTimeField(), null=True)
    dates = postgres.ArrayField(models.DateField(null=True), null=True)
    uuids = postgres.ArrayField(models.UUIDField(), null=True)
    moneys = postgres.ArrayField(MoneyField(), null=True)
    documents = postgres.ArrayField(models.JSONField(), null=True)
    sized = postgres.ArrayField(models.BooleanField(), size=3, null=True)
    integer_range = postgres.IntegerRangeField(null=True)
    big_range = postgres.BigIntegerRangeField(null=True)
    decimal_range = postgres.DecimalRangeField(null=True)
    date_range = postgres.DateRangeField(null=True)
    moment_range = postgres.DateTimeRangeField(null=True)
    ranges = postgres.ArrayField(postgres.DateTimeRangeField(), null=True)
    search = SearchVectorField(null=True)

    class Meta(OnDemand.Meta):
        db_table = "binding_postgres"


class ExtensionFields(OnDemand):
    """Fields of types that an extension brings."""

    id = models.BigAutoField(primary_key=True)
    pairs = postgres.HStoreField(null=True)
    pairs_list = postgres.ArrayField(postgres.HStoreField(), null=True)
    folded = DatabaseTypeField("citext", null=True)
    folded_list = postgres.ArrayField(DatabaseTypeField("citext"), null=True)

    class Meta(OnDemand.Meta):
        db_table = "binding_extension"


class CustomFields(OnDemand):
    """Fields that a project writes itself."""

    id = models.BigAutoField(primary_key=True)
    price = MoneyField(null=True)
    secret = EncryptedField(null=True)
    exact = models.JSONField(decoder=ExactNumbers, null=True)
    vector = VectorField(null=True)

    class Meta(OnDemand.Meta):
        db_table = "binding_custom"


class MoneyKey(OnDemand):
    """A key that a field of the project's own converts."""

    price = MoneyField(primary_key=True)

    class Meta(OnDemand.Meta):
        db_table = "binding_moneykey"


class MoneyReference(OnDemand):
    """A foreign key to such a key: its values are converted as the key's own are."""

    id = models.BigAutoField(primary_key=True)
    target = models.ForeignKey(MoneyKey, models.CASCADE, null=True, related_name="+")

    class Meta(OnDemand.Meta):
        db_table = "binding_moneyreference"


class DomainFields(OnDemand):
    """Columns of domains and of an enum."""

    id = models.BigAutoField(primary_key=True)
    count = DatabaseTypeField("binding_count", null=True)
    amount = DatabaseTypeField("binding_amount", null=True)
    at = DatabaseTypeField("binding_moment", null=True)
    mood = DatabaseTypeField("binding_mood", null=True)
    moods = DatabaseTypeField("binding_mood[]", null=True)
    counts = DatabaseTypeField("binding_count[]", null=True)
    pair = DatabaseTypeField("binding_pair", null=True)

    class Meta(OnDemand.Meta):
        db_table = "binding_domain"


class StoredGenerated(OnDemand):
    """A column that the server computes and keeps."""

    id = models.BigAutoField(primary_key=True)
    name = models.TextField()
    lowered = models.GeneratedField(expression=Lower("name"), output_field=models.TextField(), db_persist=True)
    other = models.IntegerField(default=0)

    class Meta(OnDemand.Meta):
        db_table = "binding_stored"


class ConvertedGenerated(OnDemand):
    """A column that the server computes, whose values a field of the project's own converts."""

    id = models.BigAutoField(primary_key=True)
    text = models.TextField()
    price = models.GeneratedField(expression=models.F("text"), output_field=MoneyField(), db_persist=True)

    class Meta(OnDemand.Meta):
        db_table = "binding_converted"


if django.VERSION >= (6,):

    class VirtualGenerated(OnDemand):
        """A column that the server computes when it is read (PostgreSQL 18)."""

        id = models.BigAutoField(primary_key=True)
        number = models.IntegerField()
        double = models.GeneratedField(
            expression=models.F("number") * 2, output_field=models.IntegerField(), db_persist=False
        )
        other = models.IntegerField(default=0)

        class Meta(OnDemand.Meta):
            db_table = "binding_virtual"


class CompositeKey(OnDemand):
    """A key of two columns, the second of them by another name."""

    pk = models.CompositePrimaryKey("tenant", "number")
    tenant = models.CharField(max_length=20)
    number = models.IntegerField(db_column="No")
    text = models.TextField(default="")

    class Meta(OnDemand.Meta):
        db_table = "binding_composite"


class OddNames(OnDemand):
    """Names that need quoting, a schema, and more bytes than PostgreSQL keeps of a name."""

    id = models.BigAutoField(primary_key=True, db_column="Weird Id")
    weird = models.TextField(db_column="Weird Col")
    größe = models.IntegerField()
    emoji = models.TextField(db_column="🦀.'col';--")
    reserved = models.TextField(db_column="select")
    quoted = models.TextField(db_column='"Quoted"')
    long = models.TextField(db_column="długa_nazwa_kolumny_z_ąęóćżź_" * 3)

    class Meta(OnDemand.Meta):
        db_table = '"Odd Schema"."M Tāble"'


class Keyless(OnDemand):
    """A table whose identity a test decides on."""

    id = models.BigAutoField(primary_key=True)
    code = models.CharField(max_length=20)
    other = models.IntegerField(default=0)
    big = models.TextField(null=True)

    class Meta(OnDemand.Meta):
        db_table = "binding_identity"


class Tag(OnDemand):
    """What articles are tagged with."""

    id = models.BigAutoField(primary_key=True)
    name = models.CharField(max_length=20)

    class Meta(OnDemand.Meta):
        db_table = "binding_tag"


class Article(OnDemand):
    """Has many-to-many relations of both kinds."""

    id = models.BigAutoField(primary_key=True)
    tags = models.ManyToManyField(Tag, related_name="+")
    rated: Any = models.ManyToManyField(Tag, through="testapp.Rating", related_name="+")

    class Meta(OnDemand.Meta):
        db_table = "binding_article"


class Rating(OnDemand):
    """A through table with a column of its own."""

    id = models.BigAutoField(primary_key=True)
    article = models.ForeignKey(Article, models.CASCADE, related_name="+")
    tag = models.ForeignKey(Tag, models.CASCADE, related_name="+")
    stars = models.IntegerField(default=0)

    class Meta(OnDemand.Meta):
        db_table = "binding_rating"


class Place(OnDemand):
    """The parent of multi-table inheritance."""

    id = models.BigAutoField(primary_key=True)
    name = models.CharField(max_length=20)

    class Meta(OnDemand.Meta):
        db_table = "binding_place"


class Restaurant(Place):
    """The child: a table with its own column and the link to its parent's row."""

    stars = models.IntegerField(default=0)

    class Meta(OnDemand.Meta):
        db_table = "binding_restaurant"


class NamedPlace(Place):
    """A proxy: no table, no rows."""

    class Meta(OnDemand.Meta):
        proxy = True


class Measurement(OnDemand):
    """A partitioned table, which a test makes by SQL."""

    pk = models.CompositePrimaryKey("day", "number")
    day = models.DateField()
    number = models.IntegerField()
    text = models.TextField(null=True)

    class Meta(OnDemand.Meta):
        db_table = "binding_measurement"


class January(OnDemand):
    """One partition of it."""

    pk = models.CompositePrimaryKey("day", "number")
    day = models.DateField()
    number = models.IntegerField()
    text = models.TextField(null=True)

    class Meta(OnDemand.Meta):
        db_table = "binding_measurement_1"


class Counted(OnDemand):
    """A row that tells how often it was decoded."""

    id = models.BigAutoField(primary_key=True)
    status = models.CharField(max_length=20, default="new")
    text = CountedField(default="")

    class Meta(OnDemand.Meta):
        db_table = "binding_counted"
