"""The models that these tests write to; their tables are made where a test asks for them."""

from django.db import models
from django.db.models.functions import Now


class OnDemand(models.Model):
    class Meta:
        abstract = True
        app_label = "testapp"
        managed = False


class Venue(OnDemand):
    name = models.CharField(max_length=20)
    rating = models.DecimalField(max_digits=4, decimal_places=2, default=0)
    facts = models.JSONField(default=dict)
    photo = models.FileField(default="")
    opened_at = models.DateTimeField(db_default=Now())
    floors = models.IntegerField(db_default=1)

    class Meta(OnDemand.Meta):
        db_table = "testing_place"


class Theatre(Venue):
    stars = models.IntegerField(default=0)

    class Meta(OnDemand.Meta):
        db_table = "testing_restaurant"


class ProxyVenue(Venue):
    class Meta(OnDemand.Meta):
        proxy = True


class Coded(OnDemand):
    code = models.CharField(primary_key=True, max_length=10)

    class Meta(OnDemand.Meta):
        db_table = "testing_coded"


class Review(OnDemand):
    place = models.ForeignKey(Venue, models.CASCADE, related_name="reviews")
    text = models.TextField(default="")
    reply_to = models.ForeignKey("self", models.SET_NULL, null=True)

    class Meta(OnDemand.Meta):
        db_table = "testing_review"
