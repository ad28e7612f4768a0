"""Django's settings for the tests."""

import json
import os

from tests.server import database, settle

SECRET_KEY = "tests only"
DEBUG = "TEST_DEBUG" in os.environ
USE_TZ = True
ALLOWED_HOSTS = ["testserver", "localhost"]
ROOT_URLCONF = "tests.urls"
STATIC_URL = "static/"
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"

DATABASES = {"default": {**database(settle()), "TEST": {"NAME": "test_walsignals"}}}

if "TEST_SQLITE" in os.environ:
    DATABASES["elsewhere"] = {"ENGINE": "django.db.backends.sqlite3", "NAME": ":memory:"}

INSTALLED_APPS = [
    "django.contrib.admin",
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.messages",
    "django.contrib.postgres",
    "django.contrib.sessions",
    "django.contrib.staticfiles",
    "django_walsignals",
    "tests.ledger",
    "tests.testapp",
]
MIDDLEWARE = [
    "tests.browser.policy.StrictPolicy",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
]
TEMPLATES = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "APP_DIRS": True,
        "OPTIONS": {
            "context_processors": [
                "django.template.context_processors.request",
                "django.contrib.auth.context_processors.auth",
                "django.contrib.messages.context_processors.messages",
            ]
        },
    }
]
PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]  # fast; nothing here is secret
# For Django 6.1; earlier ones replace EMAIL_BACKEND while testing, without being asked.
MAILERS = {"default": {"BACKEND": "django.core.mail.backends.locmem.EmailBackend"}}

# A consumer in a process of its own is told its stream through the environment.
if "TEST_WALSIGNALS" in os.environ:
    WALSIGNALS = json.loads(os.environ["TEST_WALSIGNALS"])
