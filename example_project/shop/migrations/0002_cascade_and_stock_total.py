"""A cascade that plain SQL gets too, and the one row of the stock total."""

from django.apps.registry import Apps
from django.db import migrations
from django.db.backends.base.schema import BaseDatabaseSchemaEditor

ADD_CASCADE = """
    ALTER TABLE shop_orderitem ADD CONSTRAINT shop_orderitem_order_id_cascade
    FOREIGN KEY (order_id) REFERENCES shop_order (id) ON DELETE CASCADE DEFERRABLE INITIALLY DEFERRED
"""
DROP_CASCADE = "ALTER TABLE shop_orderitem DROP CONSTRAINT shop_orderitem_order_id_cascade"


def add_stock_total(apps: Apps, schema_editor: BaseDatabaseSchemaEditor) -> None:
    apps.get_model("shop", "StockTotal").objects.using(schema_editor.connection.alias).create(pk=1)


class Migration(migrations.Migration):
    dependencies = [("shop", "0001_initial")]

    operations = [
        migrations.RunSQL(ADD_CASCADE, DROP_CASCADE),
        migrations.RunPython(add_stock_total, migrations.RunPython.noop),
    ]
